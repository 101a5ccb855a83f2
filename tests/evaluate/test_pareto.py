import faiss
import numpy as np
import pandas as pd
import pytest

from dask_dedup.data.dataset import read_dataset
from dask_dedup.errors import CapacityError, InputError, OutputError, SettingsError
from dask_dedup.evaluate import pareto
from dask_dedup.evaluate.evaluation_settings import ParetoSettings
from dask_dedup.evaluate.factories import choose_centroids, fill_factories
from dask_dedup.evaluate.pareto import measure_pareto, points_frame
from dask_dedup.runtime.executor import NoProgress
from dask_dedup.storage.files import read_json


@pytest.fixture
def data(tmp_path, write_dataset):
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.normal(size=(150, 24)), 4, axis=0) + rng.normal(size=(600, 24)) / 4
    rows[17], rows[300] = 0, np.nan
    return read_dataset(write_dataset(tmp_path / "data", np.split(rows.astype("f2"), [101, 350])))


def settings(**values):
    return ParetoSettings.model_validate(
        {"factories": ["Flat"], "queries": 60, "ks": [1, 5], "repeats": 2, **values}
    )


def test_measure_pareto_flat_search_of_raw_rows_is_right(data, tmp_path):
    result = measure_pareto(data, tmp_path / "out", settings())
    (point,) = result["points"]
    assert (point["recall@1"], point["recall@5"]) == (1, 1)
    assert point["bytes_per_vector"] == 4 * 24
    assert (point["model"], point["dim"], point["setting"]) == ("raw", 24, "")
    assert point["front"]
    assert point["front_with_bytes"]
    assert point["slowest"] <= point["queries_per_second"] <= point["fastest"]


def test_measure_pareto_recall_is_that_of_a_hand_made_search(data, tmp_path):
    result = measure_pareto(
        data, tmp_path / "out", settings(factories=["IVF8,PQ6"], nprobe=[1, 8], queries=600)
    )
    stored = data.embeddings.compute()
    wide = stored.astype("f8")
    usable = np.delete(np.arange(600), [17, 300])
    wide = wide[usable] / np.linalg.norm(wide[usable], axis=1, keepdims=True)
    cosine = wide @ wide.T
    np.fill_diagonal(cosine, -2)
    bound = -np.sort(-cosine, axis=1)[:, 4]
    index = pareto.train_base(wide.astype("f4"), "IVF8,PQ6")
    index.add(wide.astype("f4"))
    for point, nprobe in zip(result["points"], (1, 8), strict=True):
        assert point["setting"] == f"nprobe={nprobe}"
        faiss.ParameterSpace().set_index_parameter(index, "nprobe", nprobe)
        _, found = index.search(wide.astype("f4"), 6)
        right = 0
        for i, ids in enumerate(found):
            others = [j for j in ids if j != i][:5]
            right += sum(j >= 0 and cosine[i, j] >= bound[i] - 1e-6 for j in others)
        assert point["recall@5"] == pytest.approx(right / (5 * 598), abs=0.002)
    assert result["points"][0]["recall@5"] < result["points"][1]["recall@5"] < 1


def test_measure_pareto_writes_what_it_returns_and_nothing_twice(data, tmp_path):
    wanted = settings(models=["raw", "pca:8"], factories=["IVF{C},PQ{M}"], m=[4, 6], nprobe=[1, 4])
    result = measure_pareto(data, tmp_path / "out", wanted)
    frame = points_frame(result)
    # 24 is divided by 4 and by 6, 8 by 4 alone; two settings each.
    assert frame.groupby("model").size().to_dict() == {"raw": 4, "pca-8": 2}
    assert set(frame["factory"]) == {"IVF128,PQ4", "IVF128,PQ6"}
    written = pd.read_csv(tmp_path / "out" / "pareto.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(written, frame)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "manifest.json", "models", "pareto.csv", "pareto.json", "truth",
    ]  # fmt: skip
    assert measure_pareto(data, tmp_path / "out", wanted) == result  # its times, too
    with pytest.raises(OutputError, match="the pareto of another input or other settings: seed"):
        measure_pareto(data, tmp_path / "out", wanted.model_copy(update={"seed": 1}))


def test_measure_pareto_continues_where_it_was_stopped(data, tmp_path):
    wanted = settings(factories=["Flat", "PQ4", "PQ8"], models=["pca:16"])

    class Stops(NoProgress):
        def start(self, stage, rows):
            self.stage = stage

        def advance(self, rows):
            if self.stage == "indexes":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_pareto(data, tmp_path / "out", wanted, progress=Stops())
    (record,) = (tmp_path / "out" / "stages" / "points").glob("0*.done.json")
    first = read_json(record)
    result = measure_pareto(data, tmp_path / "out", wanted)
    assert [point["factory"] for point in result["points"]] == ["Flat", "PQ4", "PQ8"]
    measured = {**first["index"], **first["points"][0]}
    assert measured.items() <= result["points"][0].items()  # its times, too: not measured again


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ({"models": ["nowhere"]}, SettingsError, "expected raw, pca:DIM, mse:DIM, snip:DIM or a"),
        ({"models": ["raw", "raw"]}, SettingsError, "'raw' is named more than once"),
        ({"models": ["pca:25"]}, SettingsError, "dim: expected 1 to 24"),
        ({"factories": ["IVF{C},PQ{M}"], "m": [7]}, SettingsError, "none of m = 7 divides the"),
        ({"factories": ["Bogus"]}, SettingsError, "factory 'Bogus': faiss cannot make"),
        ({"factories": ["IVF999,Flat"]}, InputError, "999 centroids cannot be trained on 598 rows"),
        ({"ks": [700]}, InputError, "no sampled row has 700 usable neighbours"),
        ({"modality": "text"}, InputError, "has no text embeddings"),
    ],
)
def test_measure_pareto_refuses_in_our_words(data, tmp_path, values, kind, message):
    with pytest.raises(kind) as caught:
        measure_pareto(data, tmp_path / "out", settings(**values))
    assert message in str(caught.value)
    assert not (tmp_path / "out" / "pareto.json").exists()


def test_measure_pareto_refuses_an_index_that_does_not_fit(data, tmp_path):
    with pytest.raises(CapacityError, match=r"598 rows of 96 bytes need 0\.0 GB, of"):
        measure_pareto(data, tmp_path / "out", settings(), memory_bytes=50_000)


def test_measure_pareto_takes_times_by_the_clock_it_is_told(data, tmp_path, monkeypatch):
    ticks = {"wall": iter(range(1000)), "cpu": iter(range(0, 5000, 5))}
    # A real clock has no ticks to count, and the settings name it by a word.
    monkeypatch.setattr(pareto, "_CLOCKS", {k: v.__next__ for k, v in ticks.items()})
    for clock, seconds in (("wall", 1), ("cpu", 5)):
        result = measure_pareto(data, tmp_path / clock, settings(clock=clock))
        (point,) = result["points"]
        assert point["queries_per_second"] == result["queries"] / seconds
        assert point["train_seconds"] == seconds
        assert point["build_seconds"] == 2 * seconds  # in two goes


def test_fill_factories_takes_each_string_once():
    found = fill_factories(["OPQ{M},IVF{C},PQ{M}", "Flat", "Flat", "IVF{C},PQ{M}"], (4, 5), 8, 16)
    assert found == ["OPQ4,IVF8,PQ4", "Flat", "IVF8,PQ4"]


@pytest.mark.parametrize(("rows", "lists"), [(1, 4), (10_248, 512), (200_000, 2048)])
def test_choose_centroids_is_a_power_of_two_near_four_roots(rows, lists):
    assert choose_centroids(rows) == lists
    assert choose_centroids(rows, 7) == 7
