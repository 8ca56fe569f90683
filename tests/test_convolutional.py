"""The U-Net of our own: any sides, pictures and volumes, conditions, start, exact resumption."""

import math

import numpy as np
import pytest
import torch

from reverie import Run, fit
from reverie.denoisers import Network, network_for
from reverie.denoisers.networks.choice import default_name
from reverie.denoisers.networks.conditions import Labels, Values
from reverie.denoisers.networks.convolutional_unet import Block, ConvolutionalUNet, level_widths
from reverie.errors import InputError
from reverie.processes import EDM, VP
from reverie.runs.readings import draw_paired, standard_curves

SHAPES = [(3, 32, 32), (1, 28, 28), (2, 30, 33), (1, 9, 17), (3, 5, 4), (1, 12, 10, 9),
          (2, 16, 16, 16)]  # fmt: skip


def woken(body):
    """The network with every weight that starts at 0 moved off it."""
    torch.manual_seed(0)
    for parameter in body.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return body


@pytest.mark.parametrize("shape", SHAPES)
def test_any_sides_keep_their_shape_and_every_weight_is_used(shape, generator):
    body = woken(ConvolutionalUNet(shape, 16))
    x = torch.randn(2, *shape, generator=generator, requires_grad=True)
    out = body(x, torch.tensor([-0.5, 0.3]))
    assert out.shape == x.shape
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in body.parameters())
    assert x.grad.abs().amin() > 0  # no cell is cut off


@pytest.mark.parametrize("shape", [(3, 20, 18), (1, 10, 9, 8)])
def test_it_starts_as_the_preconditioned_identity(shape, generator):
    network = network_for(EDM(), shape, "convolutional", 16)
    assert isinstance(network, Network)
    state, t = torch.randn(4, *shape, generator=generator), torch.linspace(0.1, 0.9, 4)
    alpha, sigma = network.process.scales(t, state)
    skip = 1 / (1 + (sigma / alpha) ** 2)  # c_skip of Karras et al. 2022, at deviation 1
    assert torch.allclose(network(state, t), skip * state / alpha, atol=1e-6)


def test_rows_do_not_see_one_another(generator):
    body = woken(ConvolutionalUNet((2, 17, 12), 16)).double()
    x = torch.randn(3, 2, 17, 12, generator=generator, dtype=torch.float64)
    level = torch.tensor([0.1, -0.2, 0.4], dtype=torch.float64)
    alone = torch.cat([body(x[k : k + 1], level[k : k + 1]) for k in range(3)])
    assert torch.allclose(body(x, level), alone, atol=1e-12)
    assert not torch.allclose(body(x, level.flip(0)), body(x, level))


def test_the_gradient_is_the_derivative(generator):
    """Reverse mode against central differences along a direction, in float64."""
    body = woken(ConvolutionalUNet((1, 9, 11), 8)).double()
    x, way = torch.randn(2, 2, 1, 9, 11, generator=generator, dtype=torch.float64)
    level = torch.zeros(2, dtype=torch.float64)
    x.requires_grad_()
    (slope,) = torch.autograd.grad(body(x, level).sin().sum(), x)
    step = 1e-5
    with torch.no_grad():
        up, down = (body(x + s * way, level).sin().sum() for s in (step, -step))
    assert float((slope * way).sum()) == pytest.approx(float(up - down) / (2 * step), rel=1e-6)


def test_a_block_is_its_formula(generator):
    """x + conv(silu(scale norm(conv(silu(norm x))) + shift)), in the field's own functions."""
    block = woken(Block(2, 16, 16))
    x, time = torch.randn(2, 16, 6, 5, generator=generator), torch.randn(2, 128)
    f = torch.nn.functional
    h = f.silu(f.group_norm(x, 2, block.before.weight, block.before.bias))
    h = f.group_norm(f.conv2d(h, block.first.weight, block.first.bias, padding=1), 2)
    scale, shift = block.modulate(time)[:, :, None, None].chunk(2, 1)
    h = f.conv2d(
        f.silu((1 + scale) * h + shift), block.second.weight, block.second.bias, padding=1
    )
    assert torch.allclose(block(x, time), x + h, atol=1e-5)


def test_levels_cost_about_the_same_and_coarse_ones_hold_the_weights():
    assert level_widths((32, 32), 128) == [16, 32, 64, 128]
    assert level_widths((28, 30), 64) == [8, 16, 32, 64]
    assert level_widths((8, 8), 64) == [32, 64]
    assert level_widths((16, 16, 16), 256) == [16, 64, 256]
    body = ConvolutionalUNet((3, 32, 32), 128)
    counts = {}

    def count(layer, given, out):
        counts[layer] = layer.weight.numel() * out[0, 0].numel()

    for module in body.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    body(torch.zeros(1, 3, 32, 32), torch.zeros(1))
    assert body.operations == pytest.approx(sum(counts.values()), rel=0.25)


@pytest.mark.parametrize(
    ("encoder", "told", "other"),
    [
        (Labels(3), torch.tensor([0, 2]), torch.tensor([1, -1])),
        (Values((4,)), torch.ones(2, 4), torch.zeros(2, 4)),
        (Values((1, 10, 9)), torch.ones(2, 1, 10, 9), torch.full((2, 1, 10, 9), math.nan)),
    ],
    ids=["labels", "vectors", "pictures"],
)
def test_it_is_told_labels_vectors_and_pictures(encoder, told, other, generator):
    body = woken(ConvolutionalUNet((3, 10, 9), 16, condition=encoder))
    x, level = torch.randn(2, 3, 10, 9, generator=generator), torch.zeros(2)
    assert not torch.allclose(body(x, level, told), body(x, level, other))
    assert body(x, level).shape == x.shape  # told nothing
    with pytest.raises(InputError, match="takes no condition"):
        ConvolutionalUNet((3, 10, 9), 16)(x, level, told)


def test_what_it_does_not_take():
    with pytest.raises(InputError, match=r"takes pictures .* or volumes"):
        ConvolutionalUNet((5,), 16)
    with pytest.raises(InputError, match="values on a grid of"):
        ConvolutionalUNet((3, 10, 9), 16, condition=Values((1, 4, 4)))


def test_it_is_the_default_of_pictures_and_volumes():
    shapes = {
        "mlp": [(7,), (1, 8, 8), (9, 20, 20), (2, 3, 4)],
        "convolutional": [(1, 28, 28), (3, 16, 40), (1, 6, 6, 6)],
    }
    for name, known in shapes.items():
        assert {default_name(VP(), shape) for shape in known} == {name}


# --- through fit ---------------------------------------------------------------------------------

FEW = dict(steps=6, check_every=6, batch_size=8, width=8, holdout=20)


def weights(run):
    return run.denoiser.state_dict()


@pytest.mark.parametrize("shape", [(17, 16, 1), (1, 4, 5, 4)], ids=["pictures", "volumes"])
def test_a_fit_of_grids_resumes_bit_by_bit(shape, tmp_path):
    data = np.random.default_rng(0).integers(0, 255, (60, *shape)).astype(np.float32)
    whole = fit(data, out=tmp_path / "whole", **FEW)
    assert whole.config.network == "convolutional"

    def stop(event, trainer):
        if event.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(data, out=tmp_path / "half", on_event=stop, **FEW)
    again = fit(out=tmp_path / "half", resume=True)
    assert again.step == whole.step == 6
    assert all(torch.equal(a, weights(again)[name]) for name, a in weights(whole).items())
    loaded = Run.load(tmp_path / "half")
    drawn = draw_paired(loaded.denoiser, loaded.scaler.point_shape, 3, steps=2)
    assert torch.equal(drawn, draw_paired(whole.denoiser, whole.scaler.point_shape, 3, steps=2))
    assert loaded.scaler.to_user(drawn).shape == (3, *loaded.holdout_values.shape[1:])


def test_a_volume_is_scaled_by_one_deviation():
    """Corners of a scan that hardly vary are not blown up to the deviation of the rest."""
    rng = np.random.default_rng(0)
    data = rng.normal(size=(40, 1, 5, 5, 5)) * np.linspace(0.01, 3, 5)
    run = fit(data, **FEW)
    points = run.train_points()
    assert float(points.std()) == pytest.approx(1.0, abs=0.01)
    assert float(points[..., 0].std()) < 0.02
    assert np.allclose(run.scaler.to_user(points), run.train_values, atol=1e-5)


@pytest.mark.slow
def test_it_learns_a_law_of_pictures_better_than_the_linear_guess():
    """Stripes at a random place: no Gaussian law, and one that convolutions see at once."""
    rng = np.random.default_rng(0)
    place = rng.integers(0, 16, 600)
    data = np.zeros((600, 1, 16, 16), np.float32)
    data[np.arange(600), 0, :, place] = 1.0
    run = fit(data, steps=300, check_every=300, batch_size=32, width=16, holdout=100, lr=2e-3)
    curves = standard_curves(run, 16, rows=60)
    assert curves["holdout"].area() < 0.5 * curves["linear on holdout"].area()
