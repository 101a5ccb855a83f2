"""Scores of pseudo-generations with known answers, against pictures of files, tars and URLs."""

from __future__ import annotations

import io
import shutil
import tarfile
import threading
import warnings
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import dask_dedup
from dask_dedup.errors import InputError, OutputError, SettingsError
from dask_dedup.paths import as_path
from dask_dedup.runtime.executor import compute_tasks
from dask_dedup.storage.files import write_json
from dask_dedup.storage.objects import read_content
from dask_dedup.verbatim.candidates import CandidateSettings, find_candidates
from dask_dedup.verbatim.prompts import read_candidates
from dask_dedup.verbatim.report import report
from dask_dedup.verbatim.score import ScoreSettings, score
from dask_dedup.verbatim.score_tasks import Rules
from dask_dedup.verbatim.squared_errors import squared_error
from dask_dedup.verbatim.tiles import normalised_distance

run_here = partial(dask_dedup.run, execute=compute_tasks)
ROWS = 30  # three groups: 0 to 9, 10 to 15, 16 to 18


def _group(row: int) -> int:
    return 0 if row < 10 else 1 if row < 16 else 2 if row < 19 else row


def _picture(row: int) -> np.ndarray:
    """A smooth picture of a group, a little different in each row: uint8, 256 x 256 x 3."""
    rng = np.random.default_rng(100 + _group(row))
    coarse = rng.integers(0, 256, (8, 8, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((256, 256)), np.int64)
    return np.clip(smooth + 3 * (row % 5), 0, 255).astype(np.uint8)


def _png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory, write_dataset) -> Path:
    """A finished run whose data set has pictures, and its candidates."""
    folder = tmp_path_factory.mktemp("scored")
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(ROWS, 16))
    rows = np.stack([centres[_group(i)] + 0.01 * rng.normal(size=16) for i in range(ROWS)])
    metadata = pd.DataFrame(
        {
            "url": [f"https://example.org/{i}.png" for i in range(ROWS)],
            "caption": [f"caption {_group(i)}" for i in range(ROWS)],
            "key": [f"{i:09d}" for i in range(ROWS)],
        }
    )
    write_dataset(folder / "data", [rows.astype("f4")], [metadata])
    (folder / "data/images").mkdir()
    for i in range(ROWS):
        (folder / f"data/images/{i:09d}.png").write_bytes(_png(_picture(i)))
    run_here(folder / "data", folder / "out", threshold=0.95)
    find_candidates(folder / "out", folder / "dest")
    return folder


@pytest.fixture(scope="module")
def made(planted: Path) -> Path:
    """Pictures as a model might make them, of the three candidates."""
    folder = planted / "made"
    folder.mkdir()
    candidates = pd.read_parquet(planted / "dest/candidates/candidates.parquet")
    noise = np.random.default_rng(2)
    for row in candidates.itertuples():
        own = _picture(row.row_id).astype(np.int64)
        copy = np.clip(own + noise.integers(-4, 5, own.shape), 0, 255).astype(np.uint8)
        (folder / f"{row.candidate}-copy.png").write_bytes(_png(copy))
        (folder / f"{row.candidate}-other.png").write_bytes(_png(_picture(25)))
    (folder / "0-broken.png").write_bytes(b"no picture")
    (folder / "99-x.png").write_bytes(_png(_picture(1)))
    return folder


def _scores(dest: Path) -> pd.DataFrame:
    scores = pd.read_parquet(dest / "scores/scores.parquet")
    scores["name"] = [Path(image).name for image in scores["image"]]
    return scores.set_index("name")


def test_score_by_webster(planted: Path, made: Path) -> None:
    dest = planted / "dest"
    summary = score(dest, ScoreSettings(images=str(made)), overwrite=True)
    scores = _scores(dest)
    candidates = pd.read_parquet(dest / "candidates/candidates.parquet")
    for row in candidates.itertuples():
        copy, other = (
            scores.loc[f"{row.candidate}-copy.png"],
            scores.loc[f"{row.candidate}-other.png"],
        )
        assert copy["kind"] in ("matching", "template")
        assert other["kind"] == "none" and other["score"] > other["threshold"]
        assert copy["k"] == row.k and copy["row_id"] == row.row_id
        if copy["kind"] == "matching":
            assert copy["other_row_id"] == row.row_id
            made_picture = np.asarray(Image.open(copy["image"])) / 255
            error = squared_error(made_picture, _picture(row.row_id) / 255)
            assert copy["score"] == pytest.approx(error, rel=1e-5)
    assert summary["images"] == 7 and summary["scored"] == 6
    assert summary["images_unknown"] == 1
    assert summary["problems"] == {"not an image": 1}
    assert summary["without_training"] == summary["without_images"] == 0
    problems = pd.read_parquet(dest / "scores/problems.parquet")
    assert problems["what"].tolist() == [str(made / "0-broken.png")]
    shares = pd.read_csv(dest / "scores/shares.csv")
    assert shares["copied"].tolist() == shares["candidates"].tolist()
    assert shares["candidates"].sum() == 3


def test_score_by_carlini(planted: Path, made: Path) -> None:
    dest = planted / "dest"
    score(dest, ScoreSettings(Rules(("carlini",)), images=str(made)), overwrite=True)
    scores = _scores(dest)
    members = pd.read_parquet(dest / "candidates/members.parquet")
    for name, found in scores.iterrows():
        ids = [found["row_id"], *members["row_id"][members["candidate"] == found["candidate"]]]
        picture = np.asarray(Image.open(found["image"])) / 255
        distances = [normalised_distance(picture, _picture(i) / 255) for i in ids]
        assert found["score"] == pytest.approx(min(distances), rel=1e-5)
        assert found["kind"] == ("extracted" if min(distances) <= 0.15 else "none"), name
        assert found["within"] == sum(one <= 0.15 for one in distances)
        assert found["clique"] == 0


def test_scores_as_csv_have_whole_numbers(planted: Path, made: Path) -> None:
    dest = planted / "dest"
    score(dest, ScoreSettings(Rules(("webster", "carlini")), images=str(made)), overwrite=True)
    table = pd.read_csv(dest / "scores/scores.csv", dtype="str", keep_default_na=False)
    assert set(table["clique"]) == {"", "0"}
    assert table["other_row_id"].str.fullmatch(r"\d+").all()
    assert table.loc[table["preset"] == "carlini", "within"].str.fullmatch(r"\d+").all()


def test_score_by_sscd_with_an_encoder_of_ones_own(
    planted: Path, made: Path, tmp_path: Path
) -> None:
    class Small(torch.nn.Module):
        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.adaptive_avg_pool2d(pictures, 6).flatten(1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit
        torch.jit.trace(Small(), torch.zeros(1, 3, 288, 288)).save(str(tmp_path / "e.pt"))
    dest = planted / "dest"
    rules = Rules(("sscd",), encoder=str(tmp_path / "e.pt"))
    score(dest, ScoreSettings(rules, images=str(made)), overwrite=True)
    scores = _scores(dest)
    is_copy = scores.index.str.endswith("-copy.png")
    assert (scores["kind"][is_copy] == "copy").all() and (scores["score"][is_copy] > 0.99).all()
    assert (scores["kind"][~is_copy] == "none").all()


def test_score_of_tars_and_of_files_is_the_same(planted: Path, made: Path) -> None:
    dest = planted / "dest"
    score(dest, ScoreSettings(images=str(made)), overwrite=True)
    expected = _scores(dest)
    with tarfile.open(planted / "data/all.tar", "w") as tar:
        for i in range(ROWS):
            content = _png(_picture(i))
            info = tarfile.TarInfo(f"{i:09d}.png")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    settings = ScoreSettings(images=str(made), training="all.tar#{key}")
    score(dest, settings, overwrite=True)
    pd.testing.assert_frame_equal(_scores(dest), expected)


def test_score_of_another_data_set_in_one_folder_takes_its_pictures(
    planted: Path, made: Path, tmp_path: Path
) -> None:
    dest = tmp_path / "dest"
    for name in ("first", "second", "first"):  # and the first with its pictures changed
        shutil.copytree(planted / "data", tmp_path / name, dirs_exist_ok=True)
        is_changed = dest.exists()
        with tarfile.open(tmp_path / name / "all.tar", "w") as tar:
            for i in range(ROWS):
                picture = _picture(i) if is_changed else 255 - _picture(i)
                info = tarfile.TarInfo(f"{i:09d}.png")
                info.size = len(content := _png(picture))
                tar.addfile(info, io.BytesIO(content))
        run_here(tmp_path / name, tmp_path / f"{name}-out", threshold=0.95, overwrite=True)
        find_candidates(tmp_path / f"{name}-out", dest, overwrite=True)
        settings = ScoreSettings(images=str(made), training="all.tar#{key}")
        score(dest, settings, overwrite=True)
        kinds = _scores(dest)["kind"]
        is_copy = kinds.index.str.endswith("-copy.png") & is_changed
        assert (kinds[is_copy] != "none").all() and (kinds[~is_copy] == "none").all()


def test_score_without_its_tar_says_so(planted: Path, made: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    find_candidates(planted / "out", dest)
    with pytest.raises(InputError, match=r"none of 19 training pictures .*its tar is missing"):
        score(dest, ScoreSettings(images=str(made), training="gone.tar#{key}"))


def test_score_of_urls_says_which_could_not_be_fetched(
    tmp_path: Path, write_dataset, planted: Path, made: Path
) -> None:
    (tmp_path / "served").mkdir()
    for i in range(ROWS):
        if i != 3:
            (tmp_path / f"served/{i}.png").write_bytes(_png(_picture(i)))
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        rows = np.load(planted / "data/img_emb/img_emb_0.npy")
        metadata = pd.read_parquet(planted / "data/metadata")
        metadata["url"] = [f"http://127.0.0.1:{server.server_port}/{i}.png" for i in range(ROWS)]
        write_dataset(tmp_path / "data", [rows], [metadata])
        run_here(tmp_path / "data", tmp_path / "out", threshold=0.95)
        find_candidates(tmp_path / "out", tmp_path / "dest")
        settings = ScoreSettings(images=str(made), load_urls=True)
        with pytest.raises(InputError, match=r"none of 19 training pictures .*private address"):
            score(tmp_path / "dest", settings)
        summary = score(tmp_path / "dest", settings, allow_private=True)
        server.shutdown()
    assert summary["problems"] == {"not an image": 1, "status 404": 1}
    assert summary["scored"] == 6


def test_score_without_pictures_says_what_is_missing(planted: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="holds no generated pictures"):
        score(planted / "dest")
    with pytest.raises(SettingsError, match="preset: expected webster, carlini, sscd, got x"):
        score(planted / "dest", ScoreSettings(Rules(("x",))))
    with pytest.raises(SettingsError, match="preset sscd: expected an encoder"):
        score(planted / "dest", ScoreSettings(Rules(("sscd",))))
    with pytest.raises(SettingsError, match="copy-cosine: expected a cosine from -1 to 1, got 7"):
        score(planted / "dest", ScoreSettings(Rules(("sscd",), copy_cosine=7, encoder="e.pt")))
    settings = ScoreSettings(images=str(planted / "made"), training="none/{key}.png")
    summary = score(planted / "dest", settings, overwrite=True)
    assert summary["scored"] == 0
    assert summary["problems"]["missing"] == 19
    assert summary["without_training"] == 3


def test_score_and_report_in_a_bucket_are_those_on_a_disk(
    endpoint: Path, planted: Path, made: Path, tmp_path: Path
) -> None:
    from botocore.session import Session

    Session().create_client("s3").create_bucket(Bucket="verbatim")
    local, remote = tmp_path / "dest", "s3://verbatim/dest"
    for dest in (local, remote):
        find_candidates(planted / "out", dest)
        score(dest, ScoreSettings(images=str(made)))
        report(dest)
    expected = pd.read_parquet(local / "scores/scores.parquet")
    content = read_content(as_path(f"{remote}/scores/scores.parquet"))
    found = pd.read_parquet(io.BytesIO(content))
    pd.testing.assert_frame_equal(found, expected)
    page = read_content(as_path(f"{remote}/report/index.html")).decode()
    assert page.count('class="row"') == 6


def test_score_counts_what_could_not_be_read(planted: Path, made: Path, tmp_path: Path) -> None:
    candidates = pd.read_parquet(planted / "dest/candidates/candidates.parquet")
    members = pd.read_parquet(planted / "dest/candidates/members.parquet")
    (tmp_path / "images").mkdir()
    for i in range(ROWS):
        (tmp_path / f"images/{i:09d}.png").write_bytes(_png(_picture(i)))
    own = candidates["row_id"][0]
    (tmp_path / f"images/{own:09d}.png").unlink()
    for row_id in (candidates["row_id"][1], *members["row_id"][members["candidate"] == 1]):
        (tmp_path / f"images/{row_id:09d}.png").write_bytes(b"broken")
    (tmp_path / "made").mkdir()
    for candidate in (0, 1):
        shutil.copy(made / f"{candidate}-copy.png", tmp_path / "made")
    (tmp_path / "made/2-a.png").write_bytes(b"broken")
    find_candidates(planted / "out", tmp_path / "dest")
    settings = ScoreSettings(
        images=str(tmp_path / "made"), training=f"{tmp_path}/images/{{key}}.png"
    )
    summary = score(tmp_path / "dest", settings)
    assert summary["own_picture_missing"] == 1
    assert summary["without_training"] == 1
    assert summary["without_images"] == 1
    assert summary["scored"] == 1 and summary["images"] == 3
    assert summary["problems"] == {"missing": 1, "not an image": 1 + int(candidates["k"][1])}
    report(tmp_path / "dest")
    page = (tmp_path / "dest/report/index.html").read_text()
    assert "1 candidates have no training picture that could be read." in page
    assert "1 candidates have no generated picture that could be read." in page


def test_score_anew_that_fails_leaves_the_old_scores(
    planted: Path, made: Path, tmp_path: Path
) -> None:
    dest = tmp_path / "dest"
    find_candidates(planted / "out", dest)
    score(dest, ScoreSettings(images=str(made)))

    def files() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (dest / "scores").glob("*.*")}

    before = files()
    (tmp_path / "no.pt").write_bytes(b"no network")
    rules = Rules(("sscd",), encoder=str(tmp_path / "no.pt"))
    with pytest.raises(InputError, match="is no TorchScript file"):
        score(dest, ScoreSettings(rules, images=str(made)), overwrite=True)
    after = files()
    assert {name: content for name, content in after.items() if name in before} == before
    assert report(dest)["shown"] == 6
    assert score(dest, ScoreSettings(images=str(made)))["kinds"].keys() == {"webster"}
    summary = score(dest, ScoreSettings(Rules(("carlini",)), images=str(made)), overwrite=True)
    assert summary["kinds"].keys() == {"carlini"}
    assert set(_scores(dest)["preset"]) == {"carlini"}
    assert not (dest / "scores/stages").exists()


def _generated_of(dest: Path, identity: str, finished: bool) -> None:
    """Put there what `generate` leaves: a picture of candidate 0."""
    (dest / "generated/pictures").mkdir(parents=True)
    (dest / "generated/pictures/000000-00-0000.png").write_bytes(_png(_picture(0)))
    state = {"candidates": identity, "finished": finished, "unranked": 2, "model": {"name": "m"}}
    write_json(dest / "generated/generated.json", state)


def test_score_of_pictures_of_other_candidates_is_refused(planted: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    find_candidates(planted / "out", dest)
    _generated_of(dest, read_candidates(dest).identity, finished=True)
    assert score(dest)["unfinished"] == 0
    find_candidates(planted / "out", dest, CandidateSettings(top=2), overwrite=True)
    with pytest.raises(OutputError, match="pictures were generated of other candidates"):
        score(dest, overwrite=True)


def test_score_counts_candidates_whose_copies_were_left_out(
    planted: Path, made: Path, tmp_path: Path
) -> None:
    dest = tmp_path / "dest"
    find_candidates(planted / "out", dest, CandidateSettings(members=5))
    summary = score(dest, ScoreSettings(images=str(made)))
    assert pd.read_parquet(dest / "candidates/candidates.parquet")["k"].tolist() == [10, 6, 3]
    assert (summary["copies_left_out"], summary["without_caption"]) == (1, 0)


def test_score_says_what_was_not_generated(planted: Path, tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    find_candidates(planted / "out", dest)
    _generated_of(dest, read_candidates(dest).identity, finished=False)
    summary = score(dest)
    assert (summary["unfinished"], summary["unranked"]) == (1, 2)
    report(dest)
    page = (dest / "report/index.html").read_text()
    assert "Generation was stopped before it had made all pictures." in page
    assert "2 prompts had no rank" in page
