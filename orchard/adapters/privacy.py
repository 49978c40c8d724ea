"""What an adapter with differential privacy promises, in numbers and in words."""

from typing import TypedDict

COVERED = (
    "It holds for one photo file of one adapter: whatever else somebody knows, the weights tell little more "
    "about it than if it had been left out. Copies of a photo count as photos of their own. Not covered are "
    "the number and the choice of photos, options and captions, and what the base was trained on. It is void "
    "for whoever has the run's checkpoints, which hold the secret that its noise comes from."
)


class Privacy(TypedDict):
    """The (epsilon, delta) guarantee of an adapter, and what it follows from."""

    epsilon: float
    """What the noise gives, at most what was asked for."""
    delta: float
    noise_multiplier: float
    """Standard deviation of the noise in each step, in units of ``max_grad_norm``."""
    max_grad_norm: float
    """What the gradient of each photo is clipped to."""
    sample_rate: float
    """The chance of each photo to join a step, independently of the others."""
    steps: int
    accountant: str
    """Of Opacus; ``prv`` is Gopi et al. 2021."""
    opacus: str
    """Its version."""


def described(privacy: Privacy) -> str:
    """The guarantee in one line."""
    return (
        f"epsilon {privacy['epsilon']:.3g}, delta {privacy['delta']:.2g}: {privacy['steps']} steps that each "
        f"photo joins with a chance of {privacy['sample_rate']:.3g}, gradients of photos clipped to "
        f"{privacy['max_grad_norm']:g}, noise of {privacy['noise_multiplier']:.3g} times that (DP-SGD, "
        f"{privacy['accountant']} accountant of Opacus {privacy['opacus']})"
    )
