from hypothesis import settings

# The first call of a torch operation can take a second: no deadline. Examples are few because each is a computation.
settings.register_profile("torch", deadline=None, max_examples=50)
settings.load_profile("torch")
