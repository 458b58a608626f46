"""Fidelity: plain computations beside ours, hand-made balls, titles that do not lie, intervals that cover."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from PIL import Image
from safetensors.torch import save_file

from t2ialign.errors import ModelError
from t2ialign.eval.fidelity import (
    INCEPTION,
    InceptionFeatures,
    fidelity,
    fidelity_difference,
    frechet_distance,
    kernel_distance,
    neighbourhoods,
)
from t2ialign.eval.fidelity import measure as measure_file
from t2ialign.eval.fidelity.distances import as_cloud
from t2ialign.eval.fidelity.manifolds import inside


def cloud(n: int, d: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """Correlated normal features."""
    generator = np.random.default_rng(seed)
    return generator.standard_normal((n, d)) @ np.random.default_rng(99).standard_normal((d, d)) + shift


def plain_frechet(one: np.ndarray, two: np.ndarray) -> float:
    """The formula as it is usually coded: the square root of a matrix that is not symmetric."""
    root = scipy.linalg.sqrtm(np.cov(one.T) @ np.cov(two.T)).real
    gap = np.sum((one.mean(0) - two.mean(0)) ** 2)
    return float(gap + np.trace(np.cov(one.T) + np.cov(two.T) - 2 * root))


@pytest.mark.parametrize(("n", "m", "d"), [(60, 80, 5), (30, 25, 12), (400, 300, 40)])
def test_the_frechet_distance_is_that_of_sqrtm(n: int, m: int, d: int) -> None:
    one, two = cloud(n, d, 0), 1.3 * cloud(m, d, 1, 0.4)
    assert frechet_distance(one, two) == pytest.approx(plain_frechet(one, two), rel=1e-8)


def test_frechet_with_fewer_pictures_than_dimensions_is_the_same_number() -> None:
    one, two = cloud(12, 4, 0), cloud(15, 4, 1, 1.0)
    wide = np.random.default_rng(2).standard_normal((4, 40))
    basis = np.linalg.qr(wide.T)[0].T
    assert frechet_distance(one @ basis, two @ basis) == pytest.approx(frechet_distance(one, two), rel=1e-6)


def test_frechet_by_hand() -> None:
    one, two = np.array([[0.0], [2.0]]), np.array([[3.0], [7.0]])
    # variances 2 and 8, means 1 and 5: 16 + 2 + 8 - 2 * 4
    assert frechet_distance(one, two) == pytest.approx(18)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(two, one) == pytest.approx(18)


def test_the_kernel_distance_is_the_unbiased_sum_over_pairs() -> None:
    one, two = cloud(7, 3, 0), cloud(9, 3, 1, 0.5)

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 3 + 1) ** 3)

    within = [np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j]) for x in (one, two)]
    between = np.mean([k(a, b) for a in one for b in two])
    assert kernel_distance(one, two) == pytest.approx(within[0] + within[1] - 2 * between, rel=1e-10)


def test_the_kernel_distance_has_no_bias_and_the_frechet_distance_has() -> None:
    sets = [(cloud(20, 6, 2 * i), cloud(20, 6, 2 * i + 1)) for i in range(200)]
    kernel = np.array([kernel_distance(*pair) for pair in sets])
    assert abs(kernel.mean()) < 3 * kernel.std() / 200**0.5
    frechet = np.array([frechet_distance(*pair) for pair in sets])
    assert frechet.mean() > 10 * frechet.std() / 200**0.5


def test_the_four_figures_by_hand() -> None:
    real = np.array([[0.0], [1.0], [3.0], [10.0]])
    generated = np.array([[0.5], [3.5], [30.0], [31.0]])
    # nearest neighbours: real radii 1, 1, 2, 7; generated radii 3, 3, 1, 1
    found = neighbourhoods(real, generated, k=(1, 1))
    # 0.5 in the balls of 0, 1; 3.5 in those of 3 (1 to 5) and 10 (3 to 17); 30 and 31 in none
    assert found.precision == 0.5
    assert found.density == (2 + 2) / 4
    # generated balls reach -2.5 to 3.5 and 0.5 to 6.5: 0, 1, 3 are in one, 10 is not
    assert found.recall == 0.75
    assert found.coverage == 1.0


def test_each_pair_of_figures_has_its_own_k() -> None:
    real, generated = cloud(40, 4, 0), cloud(40, 4, 1, 0.8)
    both = neighbourhoods(real, generated, k=(2, 7))
    low, high = neighbourhoods(real, generated, k=(2, 2)), neighbourhoods(real, generated, k=(7, 7))
    assert (both.precision, both.recall) == (low.precision, low.recall)
    assert (both.density, both.coverage) == (high.density, high.coverage)
    assert low.precision != high.precision


def plain_figures(real: np.ndarray, generated: np.ndarray, k: int) -> tuple[float, float, float, float]:
    """One picture after another."""

    def radius(x: np.ndarray, i: int) -> float:
        return float(sorted(np.linalg.norm(x[j] - x[i]) for j in range(len(x)) if j != i)[k - 1])

    inside = np.array([[np.linalg.norm(g - r) <= radius(real, i) for g in generated] for i, r in enumerate(real)])
    caught = [[np.linalg.norm(g - r) <= radius(generated, j) for j, g in enumerate(generated)] for r in real]
    return inside.any(0).mean(), np.any(caught, axis=1).mean(), inside.sum() / k / len(generated), inside.any(1).mean()


def test_the_four_figures_as_a_plain_loop_has_them() -> None:
    real, generated = cloud(30, 3, 0), cloud(25, 3, 1, 0.7)
    for k in (1, 3, 5):
        found = neighbourhoods(real, generated, k=(k, k))
        figures = (found.precision, found.recall, found.density, found.coverage)
        assert figures == pytest.approx(plain_figures(real, generated, k))


def test_a_set_against_itself_and_against_one_far_away() -> None:
    real = cloud(50, 5, 0)
    same = neighbourhoods(real, real)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    far = neighbourhoods(real, real + 1e4)
    assert (far.precision, far.recall, far.density, far.coverage) == (0, 0, 0, 0)


def test_one_picture_drawn_again_and_again_is_precise_and_has_no_recall() -> None:
    real = cloud(60, 5, 0)
    found = neighbourhoods(real, np.repeat(real[:1], 60, axis=0))
    assert found.precision == 1
    assert found.recall == pytest.approx(1 / 60)
    assert found.coverage < 0.3


def test_density_is_one_in_expectation_for_one_distribution() -> None:
    found = [neighbourhoods(cloud(200, 4, 2 * i), cloud(200, 4, 2 * i + 1)).density for i in range(20)]
    assert np.mean(found) == pytest.approx(1, abs=0.03)


def test_only_inception_makes_an_fid() -> None:
    real, generated = cloud(30, 4, 0), cloud(30, 4, 1)
    ours = fidelity(real, generated, features="mini-clip", resamples=0)
    assert ours.title("frechet_distance") == "Fréchet distance of mini-clip features (not FID)"
    assert ours.title("recall") == "recall (mini-clip features)"
    theirs = fidelity(real, generated, features=INCEPTION, resamples=0)
    assert (theirs.title("frechet_distance"), theirs.title("kernel_distance")) == ("FID", "KID")
    assert all("FID:" not in line for line in ours.lines())


def test_every_line_says_how_many_pictures_it_is_of() -> None:
    found = fidelity(cloud(31, 4, 0), cloud(27, 4, 1), features="mini-clip")
    assert len(found.lines()) == 6
    for line in found.lines():
        assert line.endswith("n = 27 generated, 31 real")
        assert "95 % interval" in line
    content = json.loads(json.dumps(found.to_dict()))
    assert (content["n_real"], content["n_generated"], content["dimension"], content["k"]) == (31, 27, 4, [3, 5])
    assert content["estimates"]["precision"]["higher_is_better"]
    assert not content["estimates"]["kernel_distance"]["higher_is_better"]
    assert any("differ in size" in note for note in found.notes)


def test_the_figures_are_those_of_the_functions() -> None:
    real, generated = cloud(30, 4, 0), cloud(30, 4, 1, 0.3)
    found = fidelity(real, generated, features="x", resamples=0, k=(2, 4)).estimates
    balls = neighbourhoods(real, generated, k=(2, 4))
    assert found["frechet_distance"].value == frechet_distance(real, generated)
    assert found["kernel_distance"].value == kernel_distance(real, generated)
    assert [found[name].value for name in ("precision", "recall", "density", "coverage")] == [
        balls.precision,
        balls.recall,
        balls.density,
        balls.coverage,
    ]
    assert all(each.interval is None for each in found.values())


def test_intervals_cover_the_expected_figure_at_these_numbers() -> None:
    def pair(seed: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
        generator = np.random.default_rng(seed)
        real = generator.standard_normal((40, 3))
        centres = np.repeat(generator.standard_normal((30, 3)), 2, axis=0) + np.array([0.7, 0, 0])
        return real, centres + 0.3 * generator.standard_normal((60, 3)), [i // 2 for i in range(60)]

    wanted = ("frechet_distance", "kernel_distance", "precision", "coverage")
    truth = {name: 0.0 for name in wanted}
    for seed in range(1000, 1300):
        each = fidelity(*pair(seed), features="x", metrics=wanted, resamples=0).estimates
        truth = {name: truth[name] + each[name].value / 300 for name in wanted}
    held = dict.fromkeys(wanted, 0)
    for seed in range(120):
        found = fidelity(*pair(seed), features="x", metrics=wanted, resamples=40).estimates
        for name, estimate in found.items():
            assert estimate.interval is not None
            held[name] += int(estimate.interval.low <= truth[name] <= estimate.interval.high)
    for name, count in held.items():
        assert 0.86 <= count / 120 <= 1, name
    assert np.mean(list(held.values())) / 120 < 0.995


def test_pictures_of_a_prompt_stay_together() -> None:
    generator = np.random.default_rng(0)
    real = generator.standard_normal((80, 4))
    generated = np.repeat(generator.standard_normal((20, 4)), 6, axis=0) + 0.05 * generator.standard_normal((120, 4))
    ids = [i // 6 for i in range(120)]
    errors = [
        fidelity(real, generated, prompts, features="x", metrics=["kernel_distance"]).estimates["kernel_distance"]
        for prompts in (ids, None)
    ]
    assert errors[0].standard_error is not None
    assert errors[1].standard_error is not None
    assert errors[0].standard_error > 1.3 * errors[1].standard_error


def test_the_difference_of_two_models_on_the_same_prompts() -> None:
    real, base = cloud(50, 4, 0), cloud(40, 4, 1, 0.5)
    ids = [f"p{i}" for i in range(40)]
    other = base + 0.3
    found = fidelity_difference(real, base, other[::-1], ids, ids[::-1], features="x")
    one, two = (fidelity(real, side, ids, features="x") for side in (base, other))
    for name, each in found.estimates.items():
        assert each.value == pytest.approx(two.estimates[name].value - one.estimates[name].value, abs=1e-9)
    error = found.estimates["frechet_distance"].standard_error
    alone = two.estimates["frechet_distance"].standard_error
    assert error is not None
    assert alone is not None
    assert error < alone
    with pytest.raises(ValueError, match=r"pictures of 1 prompts \(p39\)"):
        fidelity_difference(real, base, other[:-1], ids, ids[:-1], features="x")


def test_too_few_pictures_are_said_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = fidelity(cloud(9, 12, 0), cloud(20, 12, 1), features="x")
    assert any("no more than the 12 dimensions" in note for note in found.notes)
    assert any("no intervals" in note for note in found.notes)
    assert all(each.interval is None for each in found.estimates.values())
    with pytest.raises(ValueError, match="5-th neighbour of 5 pictures"):
        fidelity(cloud(5, 2, 0), cloud(20, 2, 1), features="x")
    monkeypatch.setattr(measure_file, "HELD", 100)
    large = fidelity(cloud(20, 3, 0), cloud(20, 3, 1), features="x", resamples=20)
    assert large.estimates["precision"].interval is None
    assert large.estimates["precision"].value == neighbourhoods(cloud(20, 3, 0), cloud(20, 3, 1)).precision
    assert large.estimates["kernel_distance"].interval is not None
    assert any("too large" in note for note in large.notes)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"metrics": ["fid"]}, r"unknown metrics \['fid'\]"),
        ({"resamples": 3}, "too few"),
        ({"features": " "}, "need a name"),
        ({"prompts": [1]}, "1 prompts for 20"),
        ({"confidence": 2.0}, "not between"),
    ],
)
def test_arguments_out_of_range(more: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fidelity(cloud(20, 3, 0), cloud(20, 3, 1), **{"features": "x", **more})  # type: ignore[arg-type]


def test_clouds_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="width 3 and 4"):
        frechet_distance(cloud(20, 3, 0), cloud(20, 4, 0))
    with pytest.raises(ValueError, match="n at least 2"):
        frechet_distance(cloud(1, 3, 0), cloud(20, 3, 0))
    broken = cloud(20, 3, 0)
    broken[7, 1] = np.nan
    with pytest.raises(ValueError, match="generated feature vector 7 is not finite"):
        kernel_distance(cloud(20, 3, 0), broken)


def test_without_weights_the_message_says_where_they_are() -> None:
    with pytest.raises(ModelError, match=r"weights-inception-2015-12-05-6726825d\.pth.*torch-fidelity"):
        InceptionFeatures("nowhere.pth")


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.target,)


def test_a_file_that_holds_more_than_tensors_is_not_unpickled(tmp_path: Path) -> None:
    torch.save({"weight": Evil(tmp_path / "harm")}, tmp_path / "evil.pth")
    with pytest.raises(ModelError, match="more than tensors"):
        InceptionFeatures(tmp_path / "evil.pth")
    assert not (tmp_path / "harm").exists()


def test_inception_from_a_file_of_either_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    torch.manual_seed(0)
    with monkeypatch.context() as patch:
        patch.setattr(extractor, "load_state_dict_from_url", lambda *_, **__: None)
        patch.setattr(torch.nn.Module, "load_state_dict", lambda *_, **__: None)
        network = extractor.FeatureExtractorInceptionV3("plain", ["2048"]).eval()
    state = network.state_dict()
    torch.save(state, tmp_path / "weights.pth")
    save_file(state, tmp_path / "weights.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    pictures = [Image.fromarray(each) for each in pixels]
    expected = network(torch.from_numpy(pixels).permute(0, 3, 1, 2))[0]
    for name in ("weights.pth", "weights.safetensors"):
        found = InceptionFeatures(tmp_path / name, device="cpu", batch_size=2)
        assert found.name.startswith("inception-v3, weights ")
        torch.testing.assert_close(found.embed_images(pictures), expected, rtol=1e-4, atol=1e-5)
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="other weights than Inception's"):
        InceptionFeatures(tmp_path / "other.safetensors", device="cpu")


def test_a_tensor_of_doubles_keeps_its_digits() -> None:
    values = np.array([[1.0 + 2**-40, 2.0], [3.0, 4.0 - 2**-40]])
    assert np.array_equal(as_cloud(torch.tensor(values), "real"), values)
    assert as_cloud(torch.tensor(values, dtype=torch.bfloat16), "real").dtype == np.float64
    assert frechet_distance(torch.tensor(values), values + 1) == frechet_distance(values, values + 1)


def test_inside_is_precision_picture_by_picture() -> None:
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=(60, 4)), rng.normal(scale=1.6, size=(40, 4))
    found = inside(real, generated, k=3)
    squares = ((real[:, None] - real[None]) ** 2).sum(-1)
    radii = np.sort(squares, axis=1)[:, 3]
    plain = [bool((((real - each) ** 2).sum(1) <= radii).any()) for each in generated]
    assert found.tolist() == plain
    assert found.mean() == neighbourhoods(real, generated).precision
    assert 0 < found.mean() < 1
