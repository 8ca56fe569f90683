"""Geometry and heat kernels: closed forms, brute force and quadrature."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, special
from scipy.spatial.transform import Rotation

from manifold_laws import SPACES, points
from reverie.errors import InputError
from reverie.processes import heat_kernels
from reverie.processes.heat import heat_kernel, walk
from reverie.spaces import (
    Flat,
    Hyperbolic,
    Product,
    Rotations,
    Sphere,
    Torus,
    divergence,
    space_named,
)
from reverie.spaces.divergence import probes

WITH_KERNEL = SPACES


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


# --- geometry ---------------------------------------------------------------------------------


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_geometry_is_consistent(space, generator):
    x, y = (points(space, 40, generator) for _ in range(2))
    space.check(x)
    step = space.log(x, y)
    torch.testing.assert_close(space.exp(x, step), y, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(space.tangent(x, step), step, atol=1e-9, rtol=1e-9)
    far = space.distances(x, y)
    torch.testing.assert_close(far.diagonal(), space.distance(x, y), atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(far.T, space.distances(y, x), atol=1e-7, rtol=1e-7)
    frame = space.frame(x)
    for k in range(space.dim):
        torch.testing.assert_close(space.tangent(x, frame[:, k]), frame[:, k])
        gram = torch.stack([space.inner(x, frame[:, k], frame[:, j]) for j in range(space.dim)])
        torch.testing.assert_close(gram, torch.eye(space.dim).double()[:, [k]].expand(-1, 40))
    # a geodesic has constant speed: half the way is half the distance from either end
    middle = space.exp(x, 0.5 * step)
    torch.testing.assert_close(space.distance(middle, y), 0.5 * space.distance(x, y))


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_tangent_noise_is_standard_normal(space, generator):
    x = points(space, 1, generator).expand(20000, *space.shape)
    size = space.norm(x, space.noise(x, generator=generator)).square()
    deviation = math.sqrt(2 * space.dim / 20000)
    assert abs(float(size.mean()) - space.dim) < 4 * deviation


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_points_stay_on_the_manifold(space, generator):
    for kind, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-6)):
        x = points(space, 20, generator).to(kind)
        far = walk(space, x, torch.full((20,), 2.0, dtype=kind), 500, generator=generator)
        assert float(space.residual(far).max()) < tolerance


def test_rotation_logarithm_is_stable_at_both_ends():
    space, axis = Rotations(3), np.array([1.0, 2.0, -2.0]) / 3
    for angle in (1e-12, 1e-7, 1e-3, 3.0, math.pi - 1e-5, math.pi - 1e-9, math.pi):
        matrix = torch.from_numpy(Rotation.from_rotvec(angle * axis).as_matrix())[None]
        one = space.origin()[None]
        log = space.log(one, matrix)
        turn = np.array([log[0, 2, 1], log[0, 0, 2], log[0, 1, 0]])
        sign = np.sign(turn @ axis) if angle == math.pi else 1.0  # both logarithms are right
        np.testing.assert_allclose(sign * turn, angle * axis, atol=1e-9)
        torch.testing.assert_close(space.exp(one, log), matrix, atol=1e-12, rtol=0)


def test_volumes_and_uniform_laws(generator):
    assert Sphere(2).log_volume == pytest.approx(math.log(4 * math.pi))
    assert Torus(7).log_volume == pytest.approx(7 * math.log(2 * math.pi))
    assert Rotations(3).log_volume == pytest.approx(math.log(8 * math.pi**2))
    # SO(4) is a bundle of SO(3) over the sphere S^3, volume 2 pi^2
    assert Rotations(4).log_volume == pytest.approx(math.log(16 * math.pi**4))
    n = 40000
    for space in (Rotations(3), Rotations(4)):  # characters are orthonormal: E[tr]=0, E[tr^2]=1
        trace = space.uniform(n, generator=generator).diagonal(dim1=1, dim2=2).sum(1)
        assert abs(float(trace.mean())) < 4 / math.sqrt(n)
        assert float(trace.square().mean()) == pytest.approx(1, abs=4 * 2 / math.sqrt(n))
    second = Sphere(2).uniform(n, generator=generator)
    np.testing.assert_allclose(second.T @ second / n, np.eye(3) / 3, atol=4 * 0.3 / math.sqrt(n))


@pytest.mark.parametrize(
    ("space", "rows", "sentence"),
    [
        (Sphere(2), tensor([1, 0, 0], [0, 1, 0], [0, 0, 2]), "row 2 is not on Sphere.2.: unit"),
        (Torus(2), tensor([0, 1], [4, 0]), r"row 1 is not on Torus.2.: every angle in \[-pi"),
        (Rotations(3), -torch.eye(3).double()[None], "row 0 .* matrix of determinant 1"),
        (Hyperbolic(2), tensor([1, 0, 0], [1, 1, 0]), "row 1 is not on Hyperbolic"),
        (Sphere(2), tensor([1, 0, math.nan]), "row 0 holds a value that is not finite"),
        (Sphere(2), torch.zeros(4, 2), r"points of Sphere.2. have shape \(3,\), not \(2,\)"),
        (Product(Torus(1), Sphere(1)), tensor([0, 1, 1]), "row 0 is not on Sphere.1."),
    ],
)  # fmt: skip
def test_points_off_the_manifold_are_named(space, rows, sentence):
    rows = rows if rows.ndim > 1 else rows[None]
    with pytest.raises(InputError, match=sentence):
        space.check(rows)


def test_bad_spaces():
    for make in (lambda: Sphere(0), lambda: Torus(0), lambda: Rotations(2), lambda: Hyperbolic(1)):
        with pytest.raises(InputError, match="or more"):
            make()
    with pytest.raises(InputError, match="at least one part"):
        Product()
    with pytest.raises(InputError, match="not compact"):
        Hyperbolic(2).uniform(3)


@pytest.mark.parametrize("space", [*SPACES, Flat(3)], ids=repr)
def test_spaces_are_found_by_name(space):
    assert repr(space_named(repr(space))) == repr(space)


@pytest.mark.parametrize("name", ["sphere", "Sphere", "Sphere(2.5)", "Sphere(2, 3)", "Product(2)"])
def test_unknown_names_of_spaces(name):
    with pytest.raises(InputError, match="no space is called"):
        space_named(name)


def test_geometry_agrees_with_geoopt(generator):
    geoopt = pytest.importorskip("geoopt")
    space, peer = Sphere(4), geoopt.Sphere()
    x, y = points(space, 30, generator), points(space, 30, generator)
    torch.testing.assert_close(space.log(x, y), peer.logmap(x, y))
    torch.testing.assert_close(space.exp(x, space.log(x, y)), peer.expmap(x, peer.logmap(x, y)))
    space, peer = Hyperbolic(3), geoopt.Lorentz()
    x, y = points(space, 30, generator), points(space, 30, generator)
    torch.testing.assert_close(space.log(x, y), peer.logmap(x, y))
    torch.testing.assert_close(space.distance(x, y), peer.dist(x, y))


# --- divergence ---------------------------------------------------------------------------------


def test_divergence_of_eigenfunctions(generator):
    # -Laplacian eigenvalues: n of a coordinate on S^n, 2 of the trace on SO(3), -n of x_0 on H^n
    sphere, turns, hyper = Sphere(3), Rotations(3), Hyperbolic(2)
    x = points(sphere, 20, generator)
    axis = torch.eye(4).double()[0].expand(20, 4)
    _, spread = divergence(sphere, lambda y: sphere.gradient(y, axis), x)
    torch.testing.assert_close(spread, -3 * x[:, 0])
    r = points(turns, 20, generator)
    one = torch.eye(3).double().expand(20, 3, 3)
    _, spread = divergence(turns, lambda y: turns.gradient(y, one), r)
    torch.testing.assert_close(spread, -2 * r.diagonal(dim1=1, dim2=2).sum(1))
    h = points(hyper, 20, generator)
    first = torch.eye(3).double()[0].expand(20, 3)
    _, spread = divergence(hyper, lambda y: hyper.gradient(y, first), h)
    torch.testing.assert_close(spread, 2 * h[:, 0])


def test_hutchinson_divergence_is_unbiased(generator):
    space = Product(Sphere(2), Torus(2))
    x = points(space, 1, generator).expand(4000, 5)
    matrix = torch.randn(5, 5, generator=generator, dtype=torch.float64)

    def field(y):
        return space.tangent(y, (y @ matrix.T).sin())

    with torch.no_grad():
        _, exact = divergence(space, field, x[:1])
        _, rough = divergence(space, field, x, probes(space, x, 1, generator=generator))
    assert abs(float(rough.mean() - exact)) < 4 * float(rough.std()) / math.sqrt(4000)


# --- heat kernels ------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [2, 3, 5])
@pytest.mark.parametrize("tau", [0.2, 0.5, 3.0])
def test_sphere_series_against_gegenbauer_polynomials(dim, tau):
    theta = np.linspace(0.1, 3.0, 7)
    half = 0.5 * (dim - 1)
    degrees = np.arange(60)[:, None]
    terms = (
        (2 * degrees + dim - 1) / (dim - 1) * np.exp(-0.5 * degrees * (degrees + dim - 1) * tau)
    )
    values = (terms * special.eval_gegenbauer(degrees, half, np.cos(theta))).sum(0)
    values *= math.gamma(0.5 * (dim + 1)) / (2 * math.pi ** (0.5 * (dim + 1)))
    ours = heat_kernels.sphere_series(torch.from_numpy(theta), tensor(tau), dim)[0].exp()
    np.testing.assert_allclose(ours, values, rtol=1e-7)


def closed_sphere_three(theta, tau):
    turns = theta[..., None] + 2 * math.pi * torch.arange(-3, 4)
    total = (turns * (-turns.square() / (2 * tau)).exp()).sum(-1)
    return math.exp(tau / 2) * (2 * math.pi * tau) ** -1.5 * total / theta.sin()


@pytest.mark.parametrize("tau", [0.01, 0.12, 0.16, 0.5, 2.0])
def test_three_sphere_and_rotations_have_one_closed_form(tau):
    theta = torch.linspace(0.05, 2.6, 30, dtype=torch.float64)
    ours = heat_kernels.sphere(theta, tensor(tau), 3)[0].exp()
    torch.testing.assert_close(ours, closed_sphere_three(theta, tau), rtol=1e-6, atol=0)
    half = theta / 2  # SO(3) is S^3 with opposite points glued, at twice the size
    glued = closed_sphere_three(half, tau / 4) + closed_sphere_three(math.pi - half, tau / 4)
    ours = heat_kernels.rotation(theta, tensor(tau))[0].exp()
    torch.testing.assert_close(ours, glued / 8, rtol=1e-6, atol=0)


def test_hyperbolic_plane_against_quadrature():
    for tau, r in ((0.05, 0.3), (0.7, 1.0), (3.0, 4.0)):
        # s = r + w^2 takes the square-root singularity away
        value, _ = integrate.quad(
            lambda w, r=r, tau=tau: 2 * w * (r + w * w) * math.exp(-((r + w * w) ** 2) / (2 * tau))
            / math.sqrt(math.cosh(r + w * w) - math.cosh(r)), 1e-9, 5, epsabs=0,
        )  # fmt: skip
        value *= math.sqrt(2) * math.exp(-tau / 8) * (2 * math.pi * tau) ** -1.5
        ours = heat_kernels.hyperbolic_two(tensor(r), tensor(tau))[0].exp()
        assert float(ours) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("tau", [0.1, 0.16, 0.2])
def test_both_expansions_agree_where_they_overlap(tau):
    r = torch.linspace(0, 2.4, 50, dtype=torch.float64)
    for dim, tolerance in ((2, 2e-4), (3, 5e-4), (5, 1e-2)):  # p is 1e-12 at the far end
        short = heat_kernels.sphere_expansion(r, tensor(tau), dim)
        long = heat_kernels.sphere_series(r, tensor(tau), dim)
        torch.testing.assert_close(short[0], long[0], atol=tolerance, rtol=0)
        torch.testing.assert_close(short[1] * r.sin(), long[1] * r.sin(), atol=tolerance, rtol=0)
    r = torch.linspace(0, math.pi, 50, dtype=torch.float64)
    tau = tensor(5 * tau)
    short, long = heat_kernels.rotation_images(r, tau), heat_kernels.rotation_series(r, tau)
    torch.testing.assert_close(short[0], long[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(short[1] * r.sin(), long[1] * r.sin(), atol=1e-6, rtol=0)
    tau = 4 * tau
    for a, b in zip(
        heat_kernels.circle_images(r, tau), heat_kernels.circle_series(r, tau), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=0)


def test_short_time_expansion_is_far_better_than_varadhan():
    tau, theta = tensor(0.16), tensor(0.8)
    slope = -heat_kernels.sphere_series(theta, tau, 2)[1] * theta.sin()
    ours = -heat_kernels.sphere_expansion(theta, tau, 2)[1] * theta.sin()
    assert abs(float(ours / slope) - 1) < 1e-5 < 0.02 < abs(float(-theta / tau / slope) - 1)


MOMENTS = {
    "Sphere(1)": (lambda r: r.cos(), lambda tau: math.exp(-0.5 * tau), math.pi),
    "Sphere(2)": (lambda r: r.cos(), lambda tau: math.exp(-tau), math.pi),
    "Sphere(3)": (lambda r: r.cos(), lambda tau: math.exp(-1.5 * tau), math.pi),
    "Sphere(5)": (lambda r: r.cos(), lambda tau: math.exp(-2.5 * tau), math.pi),
    "Rotations(3)": (lambda r: 1 + 2 * r.cos(), lambda tau: 3 * math.exp(-tau), math.pi),
    "Hyperbolic(2)": (lambda r: r.cosh(), lambda tau: math.exp(tau), 30.0),
    "Hyperbolic(3)": (lambda r: r.cosh(), lambda tau: math.exp(1.5 * tau), 30.0),
}
RADIAL = [s for s in WITH_KERNEL if repr(s) in MOMENTS]


def sphere_area(space, r):
    """Volume of the geodesic sphere of radius r."""
    if isinstance(space, Rotations):
        return 16 * math.pi * (r / 2).sin().square()
    area = 2 * math.pi ** (space.dim / 2) / math.gamma(space.dim / 2)
    return area * (r.sin() if space.compact else r.sinh()) ** (space.dim - 1)


@pytest.mark.parametrize("space", [Sphere(1), *RADIAL], ids=repr)
@pytest.mark.parametrize("tau", [1e-3, 0.05, 0.16, 0.9, 1.1, 3.0])
def test_kernels_have_mass_one_and_the_right_moment(space, tau):
    function, expected, furthest = MOMENTS[repr(space)]
    edge = min(furthest, 12 * math.sqrt(tau) + space.dim * tau)
    x, w = np.polynomial.legendre.leggauss(200)
    r, w = torch.from_numpy(0.5 * edge * (x + 1)), torch.from_numpy(0.5 * edge * w)
    density = heat_kernel(space).profile(r, tensor(tau))[0].exp() * sphere_area(space, r) * w
    # the expansion on S^5 is right to 5e-4 at its longest duration, to 1e-4 on S^2
    tolerance = {"Sphere(5)": 1e-3, "Sphere(2)": 1e-4}.get(repr(space), 1e-6)
    assert float(density.sum()) == pytest.approx(1, abs=tolerance)
    mean = float((density * function(r)).sum())
    assert mean == pytest.approx(expected(tau), abs=tolerance * (1 + expected(tau)))


@pytest.mark.parametrize(("first", "second"), [(0.05, 0.08), (0.1, 0.4), (0.5, 1.0)])
def test_semigroup(first, second):
    """Two steps in a row are one long step: on S^2 by a product rule, on the circle by sums."""
    space, start = Sphere(2), tensor([0, 0, 1.0])
    z, w = np.polynomial.legendre.leggauss(120)
    phi = np.arange(240) * 2 * math.pi / 240
    flat = np.sqrt(1 - z**2)
    grid = np.stack(
        [np.outer(flat, np.cos(phi)), np.outer(flat, np.sin(phi)), np.outer(z, np.ones(240))], -1
    )
    grid, weight = torch.from_numpy(grid.reshape(-1, 3)), torch.from_numpy(np.repeat(w, 240))
    ends = space.exp(start.expand(5, 3), torch.linspace(0, 1.5, 5)[:, None] * tensor([1, 0, 0]))
    heat = heat_kernel(space)
    near = heat.log_density(start, grid, tensor(first)).exp()
    far = heat.log_density(ends, grid, tensor(second).expand(5)).exp()
    both = (near * far * weight).sum(1) * 2 * math.pi / 240
    whole = heat.log_density(ends, start, tensor(first + second).expand(5)).exp()[:, 0]
    torch.testing.assert_close(both, whole, rtol=3e-4, atol=0)
    heat, ring = heat_kernel(Torus(1)), torch.from_numpy(phi)[:, None] - math.pi
    at = tensor([0.3], [2.0], [-3.0])
    near = heat.log_density(tensor([0.0]), ring, tensor(first)).exp()
    far = heat.log_density(at, ring, tensor(second).expand(3)).exp()
    whole = heat.log_density(at, tensor([0.0]), tensor(first + second).expand(3)).exp()[:, 0]
    torch.testing.assert_close((near * far).mean(1) * 2 * math.pi, whole, rtol=1e-9, atol=0)


@pytest.mark.parametrize(("first", "second"), [(0.2, 0.3), (0.3, 1.1), (1.0, 2.0)])
def test_semigroup_of_rotations(first, second):
    """Quadrature over the angle of the middle rotation and its axis's height over the last one."""
    space, heat = Rotations(3), heat_kernel(Rotations(3))
    x, w = np.polynomial.legendre.leggauss(100)
    angle, height = np.meshgrid(0.5 * math.pi * (x + 1), x, indexing="ij")
    axis = np.stack([np.sqrt(1 - height**2), 0 * height, height], -1)
    matrices = Rotation.from_rotvec((angle[..., None] * axis).reshape(-1, 3)).as_matrix()
    # dvol = 4 sin^2(w / 2) dw dheight dlongitude
    weight = np.outer(0.5 * math.pi * w, w) * 4 * np.sin(angle / 2) ** 2 * 2 * math.pi
    middle, weight = torch.from_numpy(matrices), torch.from_numpy(weight.reshape(-1))
    turns = np.outer([0.0, 0.8, 2.0], [0, 0, 1])
    ends = torch.from_numpy(Rotation.from_rotvec(turns).as_matrix())
    start = space.origin()[None]
    near = heat.log_density(start, middle, tensor(first)).exp()
    far = heat.log_density(ends, middle, tensor(second).expand(3)).exp()
    whole = heat.log_density(ends, start, tensor(first + second).expand(3)).exp()[:, 0]
    torch.testing.assert_close((near * far * weight).sum(1), whole, rtol=1e-5, atol=0)


@pytest.mark.parametrize("space", [*WITH_KERNEL, Sphere(1), Flat(2)], ids=repr)
@pytest.mark.parametrize("tau", [0.01, 0.3, 4.0])
def test_score_is_the_gradient_of_the_log_kernel(space, tau, generator):
    heat, step, n = heat_kernel(space), 1e-5, 12
    x = points(space, n, generator)
    times = torch.full((n,), tau, dtype=torch.float64)
    state = heat.draw(x, times, space.noise(x, generator=generator), generator)
    score = heat.score(state, x, times)
    torch.testing.assert_close(space.tangent(state, score), score, atol=1e-7, rtol=1e-7)
    pairs = torch.eye(n).double()
    torch.testing.assert_close(
        heat.mean_score(pairs, state, x, times), score, atol=1e-6, rtol=1e-6
    )
    for direction in space.frame(state).unbind(1):
        ahead, behind = (
            heat.log_density(space.exp(state, h * direction), x, times).diagonal()
            for h in (step, -step)
        )
        slope = space.inner(state, score, direction)
        torch.testing.assert_close(
            (ahead - behind) / (2 * step), slope, atol=2e-4 / math.sqrt(tau), rtol=1e-3
        )


@pytest.mark.parametrize("space", RADIAL, ids=repr)
@pytest.mark.parametrize("tau", [0.02, 0.5, 2.0])
def test_draws_have_the_kernels_moment(space, tau, generator):
    function, expected, _ = MOMENTS[repr(space)]
    x = points(space, 1, generator).expand(40000, *space.shape)
    times = torch.full((len(x),), tau, dtype=torch.float64)
    heat = heat_kernel(space)
    state = heat.draw(x, times, space.noise(x, generator=generator))
    values = function(space.distances(state, x[:1])[:, 0])
    error = 4 * float(values.std()) / math.sqrt(len(x)) + 1e-4 * expected(tau)
    assert abs(float(values.mean()) - expected(tau)) < error


def test_random_walk_converges_to_the_exact_increment(generator):
    space, tau = Sphere(2), 1.0
    x = space.origin().expand(60000, 3)
    times = torch.full((len(x),), tau, dtype=torch.float64)
    errors = []
    for steps in (2, 4, 16):
        mean = walk(space, x, times, steps, generator=generator)[:, 2].mean()
        errors.append(abs(float(mean) - math.exp(-tau)))
    noise = 4 * 0.58 / math.sqrt(len(x))  # E[z^2] is at most about 1/3
    assert errors[2] < noise + 0.01 < errors[0]
    assert errors[1] < 0.7 * errors[0]
