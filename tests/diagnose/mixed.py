"""Sets with a known answer of another make: images, sequences and vectors, several outputs, attention or batch norm."""

import torch
from torch import nn

from tests.diagnose.sets import Trained, World, batches, changed, chosen, error_of, normal

SIZE, STEPS = 6, 8


def image(values):
    """A stripe on an small image whose brightness is the value, at a random place, in noise."""
    rows = torch.randint(SIZE, (len(values),))
    stripe = nn.functional.one_hot(rows, SIZE).float().unsqueeze(2)
    return (
        (values.unsqueeze(1) * stripe + 0.1 * normal(len(values), SIZE).unsqueeze(2)).unsqueeze(1).repeat(1, 1, 1, SIZE)
    )


def sequence(values):
    """Two channels in eight steps: the value is the trend of the one."""
    time = torch.linspace(-1, 1, STEPS).view(1, -1, 1)
    return torch.cat([values.unsqueeze(1) * time, torch.zeros(len(values), STEPS, 1)], 2) + 0.3 * torch.randn(
        len(values), STEPS, 2
    )


def vector(values):
    """Five numbers, each a mixture of the value and noise."""
    return torch.cat([values + 0.1 * normal(len(values), 1), normal(len(values), 4)], 1)


def latents(samples, count=3):
    return [normal(samples, 1) for _ in range(count)]


def encoder(example, width):
    """A usual one for the shape of the data, with batch norm and dropout."""
    if example.dim() == 4:
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.1),
            nn.Linear(64, width),
        )
    if example.dim() == 3:
        return nn.Sequential(nn.Conv1d(STEPS, 16, 1), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1), nn.Linear(32, width))
    return nn.Sequential(
        nn.Linear(example.shape[1], 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Dropout(0.1), nn.Linear(48, width)
    )


class Attentive(nn.Module):
    """The features of modalities attend to one another; their mean is read out."""

    def __init__(self, inputs, outputs, width=16):
        super().__init__()
        self.encoders = nn.ModuleDict({m: encoder(x, width) for m, x in inputs.items()})
        self.fusion = nn.TransformerEncoderLayer(width, 2, 32, 0.1, batch_first=True)
        self.head = nn.Linear(width, outputs)

    def forward(self, inputs):
        tokens = torch.stack([encode(inputs[m]) for m, encode in self.encoders.items()], 1)
        return self.head(self.fusion(tokens).mean(1))


class Normed(nn.Module):
    """The features of modalities side by side, batch norm, and a head of two layers with dropout."""

    def __init__(self, inputs, outputs, width=16):
        super().__init__()
        self.encoders = nn.ModuleDict({m: encoder(x, width) for m, x in inputs.items()})
        both = width * len(inputs)
        self.head = nn.Sequential(
            nn.BatchNorm1d(both), nn.ReLU(), nn.Linear(both, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, outputs)
        )

    def forward(self, inputs):
        return self.head(torch.cat([encode(inputs[m]) for m, encode in self.encoders.items()], 1))


# From a number of samples to inputs and three scores.


def each_its_own(samples):
    p, s, v = latents(samples)
    return {"picture": image(p), "motion": sequence(s), "numbers": vector(v)}, torch.cat([p, s + v.tanh(), v - p], 1)


def mirrored(samples):
    inputs, scores = each_its_own(samples)
    picture = inputs["picture"].flip(2) + 0.02 * torch.randn_like(inputs["picture"])
    return inputs | {"mirror": picture}, scores


def blank(of):
    def draw(samples):
        inputs, scores = each_its_own(samples)
        return inputs | {"blank": of(samples)}, scores

    return draw


def blank_picture(samples):
    return torch.randn(samples, 1, SIZE, SIZE)


def signs(samples):
    """What `motion` and `numbers` tell they tell only together."""
    p, s, v = latents(samples)
    product = s.sign() * v.sign()
    return {"picture": image(p), "motion": sequence(s), "numbers": vector(v)}, torch.cat([p, product, product - p], 1)


def easy_and_deep(samples):
    """`numbers` are noisy copies of the scores; `motion` determines them, in a way that takes long to learn."""
    s = normal(samples, 1)
    wave = torch.cos(6 * s)
    easy = torch.cat([wave + 0.5 * normal(samples, 1), normal(samples, 1)], 1)
    return {"numbers": easy, "motion": sequence(4 * s)}, torch.cat([wave, -wave, wave], 1)


def by_heart(samples):
    """`numbers` tell little, and there are many to learn by heart."""
    p, s, v = latents(samples)
    inputs = {"picture": image(p), "motion": sequence(s), "numbers": torch.cat([vector(v), normal(samples, 120)], 1)}
    return inputs, torch.cat([p, s, p + s + 0.4 * v], 1)


WORLDS = {
    "balanced": World(each_its_own, 1200, 600, 25),
    "duplicate": World(mirrored, 1200, 600, 20),
    "noise, few": World(blank(lambda samples: normal(samples, 60)), 200, 600, 60),
    "noise, many": World(blank(blank_picture), 1600, 600, 20),
    "together": World(signs, 1500, 600, 30),
    "starved": World(easy_and_deep, 800, 600, 20),
    "overfits": World(by_heart, 250, 600, 60),
    "little": World(each_its_own, 48, 24, 30),
}

RIGHT = {
    "balanced": [("balanced", set())],
    "duplicate": [("idle", {"picture", "mirror"}), ("idle", {"mirror"}), ("idle", {"picture"})],
    "noise, few": [("overfits", {"blank"}), ("idle", {"blank"})],
    "noise, many": [("idle", {"blank"})],
    "together": [("balanced", set())],
    "starved": [("starves", {"numbers"})],
    "overfits": [("overfits", {"numbers"})],
    "little": [("cannot tell", {"picture", "motion", "numbers"})],
}


def train(model, data, epochs, loss, pull=None):
    """Adam, batches drawn anew in every epoch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    inputs, target = data
    for _ in range(epochs):
        if pull:
            pull.start_epoch(batches(*data, 64))
        for some in torch.randperm(len(target)).split(64):
            if len(some) > 1:  # for batch norm
                optimizer.zero_grad()
                loss(model({m: x[some] for m, x in inputs.items()}), target[some]).backward()
                if pull:
                    pull.add_gradient_()
                optimizer.step()
    return model.eval()


def attentive(name, seed, change=None):
    """Regression of three outputs by attention."""
    noisy = lambda scores: scores + 0.4 * torch.randn_like(scores)  # noqa: E731
    return _trained(Attentive, name, seed, change, noisy, nn.functional.mse_loss)


def normed(name, seed, change=None):
    """Three classes, side by side with batch norm."""
    return _trained(Normed, name, seed, change, lambda scores: chosen(4 * scores), nn.functional.cross_entropy)


def _trained(model, name, seed, change, target, loss):
    torch.manual_seed(1000 + seed)
    world = WORLDS[name]

    def draw(samples):
        inputs, scores = world.draw(samples)
        return inputs, target(scores)

    training, held_out = map(draw, world[1:3])
    held_out = batches(*held_out, 32)
    built = model(training[0], 3)
    epochs, pull = changed(change, built, loss, world.epochs, held_out)
    train(built, training, epochs, loss, pull)
    return Trained(built, batches(*training, 32), held_out, error_of(built, loss, draw, 1000 + seed))
