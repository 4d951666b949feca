"""The denoiser: targets against closed forms, losses against those of their own space, and every perfect network gives
ε̄ back."""

import numpy as np
import pytest
import torch
from diffusion_helpers import at, build, random_images, units

from blurdiff.diffusion.denoiser import LOSSES, PREDICTIONS, Denoiser, combined, mean_square, relation
from blurdiff.diffusion.prior import Prior

PROCESSES = {
    "quartic": {},
    "log": {"f_type": "log", "f_N": 0.6},
    "ddpm": {"basis": "pixel", "f_type": "none", "f_N": 0.0},
    "released fine-to-coarse": {"direction": "fine-to-coarse", "mode_order": "released"},
    "shifted": {"snr_shift": 2.5},
    "blurring-diffusion": {"family": "blurring-diffusion"},
}


def some_prior(resolution=6, seed=2):
    power = random_images(1, resolution, resolution, seed=seed).mul(2).exp()
    return Prior(random_images(3, resolution, resolution, seed=seed + 1), power)


def denoiser(process, prediction, network=None, prior=None, **keys):
    return Denoiser(network, process, prediction, prior=prior or some_prior(len(process.log_D[0])), **keys)


def target(model, x_0, i, noise):
    """T in pixels."""
    at_i = model.relation(i)
    centred = model.process.to_pixels(model.centred(model.process.to_modes(x_0)))
    return combined(model.process, (at_i.p, noise), (at_i.q, centred))


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", PROCESSES)
def test_a_perfect_network_gives_epsilon_and_the_image_back(name, prediction):
    process = build(6, **PROCESSES[name])
    x_0, noise = random_images(4, 3, 6, 6), random_images(4, 3, 6, 6, seed=1)
    for i in (1, 10, 500, 1000):
        seen = {}

        def network(x, timesteps, seen=seen):
            seen.update(x=x, timesteps=timesteps)
            return seen["target"]

        model = denoiser(process, prediction, network)
        steps = torch.full((4,), i)
        seen["target"] = target(model, x_0, steps, noise)
        x_i = process.q_sample(x_0, steps, noise)
        epsilon = model.epsilon(process.to_modes(x_i), at(i))
        torch.testing.assert_close(process.to_pixels(epsilon), noise, rtol=0, atol=1e-10)
        image = model.image(process.to_modes(x_i), at(i))
        # From ε̄ alone a mode that has gone under in it does not come back.
        lost = (process.alpha_sigma(at(i))[0] < 1e-3) & (prediction in ("epsilon", "score", "std"))
        torch.testing.assert_close(image, process.to_modes(x_0).masked_fill(lost, 0.0), rtol=0, atol=1e-7)
        assert seen["timesteps"].tolist() == [i] * 4
        if prediction != "gaussian":
            torch.testing.assert_close(seen["x"], x_i, rtol=0, atol=1e-13)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("loss", LOSSES)
def test_training_shows_what_sampling_shows_and_has_no_loss_with_a_perfect_network(prediction, loss):
    """Each image at its own timestep: the loss of a batch is that of its images one by one."""
    process, shown = build(6, dtype=torch.float32), []
    images = torch.randint(0, 256, (3, 6, 6, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    i, noise = torch.tensor([1, 400, 1000]), random_images(3, 3, 6, 6, seed=1).float()
    x_0 = images.permute(0, 3, 1, 2) / 255

    def network(x, timesteps):
        shown.append(x)
        return answers[timesteps.tolist()[0]] if len(x) == 1 else torch.cat(list(answers.values()))

    model = denoiser(process, prediction, network, loss=loss)
    answers = {int(k): target(model, x_0[n : n + 1], i[n : n + 1], noise[n : n + 1]) for n, k in enumerate(i)}
    assert float(model.losses(images, i, noise).max()) < 1e-9
    for n in range(3):
        model.epsilon(process.to_modes(process.q_sample(x_0, i, noise))[n : n + 1], i[n : n + 1])
        torch.testing.assert_close(shown[-1], shown[0][n : n + 1], rtol=1e-4, atol=1e-4)
    answers = {k: torch.zeros(1, 3, 6, 6) for k in answers}
    together = model.losses(images, i, noise)
    for n in range(3):
        alone = model.losses(images[n : n + 1], i[n : n + 1], noise[n : n + 1])
        torch.testing.assert_close(together[n : n + 1], alone, rtol=1e-4, atol=1e-7)
    assert together.dtype == torch.float32
    assert (together > 0).all()


def test_targets_as_matrices():
    """The score is −Σ⁻¹(x_i − M x_0), the std target x_i − M x_0, with M and Σ as explicit matrices; v as its paper has
    it, mode by mode."""
    process = build(6, 1, border="reflect", sigma=0.6)
    eye, i = units(6, 1), torch.full((36,), 700)
    M = process.q_sample(eye, i, torch.zeros_like(eye)).reshape(36, 36).T.numpy()
    K = process.q_sample(torch.zeros_like(eye), i, eye).reshape(36, 36).T.numpy()
    x_0, noise = random_images(1, 1, 6, 6), random_images(1, 1, 6, 6, seed=1)
    targets = {name: target(denoiser(process, name), x_0, at(700), noise) for name in PREDICTIONS if name != "gaussian"}
    residual = process.q_sample(x_0, at(700), noise).reshape(-1).numpy() - M @ x_0.reshape(-1).numpy()
    np.testing.assert_allclose(targets["score"].reshape(-1), -np.linalg.solve(K @ K.T, residual), atol=1e-11)
    np.testing.assert_allclose(targets["std"].reshape(-1), residual, atol=1e-13)
    np.testing.assert_allclose(targets["v"].reshape(-1), M @ noise.reshape(-1).numpy() - K @ x_0.reshape(-1).numpy(),
                               atol=1e-13)  # fmt: skip
    assert targets["epsilon"] is noise
    torch.testing.assert_close(targets["x0"], x_0, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", PROCESSES)
def test_the_named_predictions_are_limits_of_the_gaussian_one(name):
    """S → ∞: ε; S = 1 and Ā + σ² = 1: v; S → 0: x_0 up to the factor √S; one S for all modes: EDM's target."""
    process = build(6, **PROCESSES[name])
    x_0, noise, zero = (
        random_images(2, 3, 6, 6),
        random_images(2, 3, 6, 6, seed=1),
        torch.zeros(3, 6, 6, dtype=torch.float64),
    )

    def of_power(power, i):
        prior = Prior(zero, torch.full((1, 6, 6), power, dtype=torch.float64))
        return target(denoiser(process, "gaussian", prior=prior), x_0, torch.full((2,), i), noise)

    for i in (3, 300):  # later, strongly blurred modes of D would need a power beyond float64
        if process.log_alpha_bar(at(i)).min() > -30:
            torch.testing.assert_close(of_power(1e24, i), noise, rtol=0, atol=1e-3)
        torch.testing.assert_close(-of_power(1e-16, i) * 1e-8, x_0, rtol=0, atol=1e-3)
        if process.scalar_variance is None:
            v = target(denoiser(process, "v"), x_0, torch.full((2,), i), noise)
            torch.testing.assert_close(of_power(1.0, i), v, rtol=0, atol=1e-12)
        # EDM's target (2206.00364, table 1), (x_0 − c_skip x)/c_out of x = x_0 + s n with s = σ/√Ā, mode by mode.
        alpha, sigma = process.alpha_sigma(at(i))
        s, data = sigma / alpha, 0.5
        x = process.to_modes(x_0) + s * process.to_modes(noise)
        edm = (process.to_modes(x_0) - data**2 / (s**2 + data**2) * x) / (s * data / (s**2 + data**2).sqrt())
        if s.max() < 1e6:
            torch.testing.assert_close(process.to_modes(of_power(data**2, i)), -edm, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", PROCESSES)
def test_a_silent_network_is_the_exact_score_of_gaussian_data(name):
    """ε̄ = −σ ∇ log p of N(√Ā μ̄, Ā S + σ²), by automatic differentiation of that density."""
    process, prior = build(6, **PROCESSES[name]), some_prior()
    model = Denoiser(lambda x, i: torch.zeros_like(x), process, "gaussian", prior=prior)
    for i in (1, 500, 1000):
        modes = random_images(2, 3, 6, 6).requires_grad_()
        mean, variance = (process.log_alpha_bar(at(i)) / 2).exp() * prior.mean, process.log_alpha_bar(at(i)).exp()
        variance = variance * prior.power + process.variance(at(i))
        density = torch.distributions.Normal(mean, variance.sqrt()).log_prob(modes).sum()
        (score,) = torch.autograd.grad(density, modes)
        torch.testing.assert_close(
            model.epsilon(modes.detach(), at(i)), -process.variance(at(i)).sqrt() * score, rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", ["quartic", "released fine-to-coarse", "blurring-diffusion"])
def test_a_loss_is_the_one_of_its_own_space(name, prediction):
    """The error of ε̄, of x̂_0 and of the score of an imperfect network, from what it says of ε̄ alone."""
    process, i = build(6, **PROCESSES[name]), torch.tensor([20, 60])  # no mode is lost yet
    x_0, noise, wrong = random_images(2, 3, 6, 6), random_images(2, 3, 6, 6, seed=1), random_images(2, 3, 6, 6, seed=5)
    alpha, sigma = process.alpha_sigma(i)
    found = {}
    for loss in LOSSES:
        model = denoiser(process, prediction, loss=loss)
        found[loss] = mean_square(process, wrong, model.weigh(model.relation(i)))
    right = target(model, x_0, i, noise)
    modes = process.to_modes(process.q_sample(x_0, i, noise))
    errors = []
    for k in range(2):
        model.evaluate = lambda x, at, k=k: (right + wrong)[k : k + 1]
        errors.append(model.epsilon(modes[k : k + 1], i[k : k + 1]) - process.to_modes(noise)[k : k + 1])
    in_epsilon = torch.cat(errors)
    expected = {
        "epsilon": in_epsilon,
        "x0": sigma * in_epsilon / alpha,
        "prediction": wrong,
        "score": in_epsilon / sigma * (sigma.expand(2, -1, 6, 6).pow(-2).mean((1, 2, 3), keepdim=True)).rsqrt(),
    }
    for loss, error in expected.items():
        torch.testing.assert_close(found[loss], error.square().mean((1, 2, 3)), rtol=1e-9, atol=0)
    geometric = (in_epsilon * process.to_modes(wrong)).abs().mean((1, 2, 3))  # |e_ε e_F| = |ρ| e_F²
    torch.testing.assert_close(found["balanced"], geometric, rtol=1e-9, atol=0)


@pytest.mark.parametrize("resolution", [64, 256])
@pytest.mark.parametrize("keys", [{"f_type": "log", "f_N": 100.0}, {"direction": "fine-to-coarse"}])
def test_nothing_is_divided_by_what_underflows(keys, resolution):
    """float32, √Ā = 0 in many modes, powers from rounding to the mean's: all factors and losses are finite."""
    process = build(resolution, dtype=torch.float32, **keys)
    i = torch.tensor([1, 500, 1000])
    alpha, sigma = process.alpha_sigma(i)
    assert alpha.min() == 0
    power = torch.logspace(-6.5, 4.5, resolution**2, dtype=torch.float64).reshape(1, resolution, resolution)
    for prediction in PREDICTIONS:
        found = relation(prediction, alpha, sigma, power)
        for loss, weigh in LOSSES.items():
            factors = (*vars(found).values(), found.from_y, found.in_epsilon, found.in_x0, weigh(found))
            assert all(torch.as_tensor(factor).isfinite().all() for factor in factors), (prediction, loss)


@pytest.mark.parametrize("name", PROCESSES)
def test_the_guess_from_epsilon_is_the_image_and_the_mean_where_nothing_is_left(name):
    """With a silent network the image is the exact posterior mean, of which a mode that keeps less than a thousandth
    moves the mean by less than a thousandth."""
    process = build(6, **PROCESSES[name])
    prior = Prior(random_images(3, 6, 6, seed=3), torch.ones(1, 6, 6, dtype=torch.float64))
    model = Denoiser(lambda x, i: torch.zeros_like(x), process, "gaussian", prior=prior)
    for i in (1, 500, 1000):
        x_i = random_images(4, 3, 6, 6, seed=5)
        guess = model.guess(x_i, model.epsilon(x_i, at(i)), at(i))
        torch.testing.assert_close(guess, model.image(x_i, at(i)), rtol=1e-6, atol=0.005)
        lost = (process.alpha_sigma(at(i))[0] < 1e-3).expand_as(guess)
        assert torch.equal(guess[lost], prior.mean.expand_as(guess)[lost])
    assert lost.any() or name == "ddpm"
