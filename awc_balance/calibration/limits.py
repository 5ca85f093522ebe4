"""The limits that verdicts are read off by. Each is a choice, made once for all data sets."""

NEGLIGIBLE = 0.05
"""Less than this share of what the model explains is next to nothing, as is usual for what is not worth acting upon:
with noise as large as what is explained, it is 5 % of the squared error, 2.5 % of its root. A modality without which
less is lost is idle; a part that is smaller cannot overfit; a model that explains less has not learned."""

SAFE = 0.15
"""By no more than this share may the error that is left grow without what is called idle: where a model explains nearly
all, 5 % of that is many times the error."""

TOLERATED = 0.1
"""A part may be too large by so much: a tenth of what it says being noise is usual in models that are trained well."""

UNUSED = 0.1
"""A modality is not made use of if its features predict more than this share of the error that is left."""

LEARNABLE = 0.05
"""Nor if features that are learned on it alone lower the error that is left by more than this share."""

WELL_BORNE_OUT = 0.8
"""Where this share of the whole prediction is borne out, no modality overfits whose own slope is not known well."""

LEAST_BORNE_OUT = 0.5
"""Where not even this share of it is, the whole model overfits; if on training data, it has not learned."""

RIVAL = 0.5
"""What starves another is at least this large a part of the prediction, relative to the other."""
