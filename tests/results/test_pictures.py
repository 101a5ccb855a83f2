import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from dask_dedup.errors import SettingsError
from dask_dedup.results.pictures import PictureTemplate, Place, find_template, make_thumbnails

COLUMNS = ["url", "key", "name", "shard"]


def picture(colour, size=(300, 100), form="PNG", mode="RGB"):
    out = io.BytesIO()
    Image.new(mode, size, colour).save(out, form)
    return out.getvalue()


def opened(content):
    return Image.open(io.BytesIO(content))


@pytest.mark.parametrize(
    ("template", "columns", "row", "place"),
    [
        ("images/{key}.jpg", ["key"], {"key": "007"}, Place("/data/images/007.jpg", None)),
        ("{shard}.tar#{key}", ["key"], {"key": "000120345"}, Place("/data/00012.tar", "000120345")),
        ("{shard}.tar#{key}", COLUMNS, {"key": "a", "shard": "9"}, Place("/data/9.tar", "a")),
        ("/other/{name}", COLUMNS, {"name": "a/b.png"}, Place("/other/a/b.png", None)),
        ("a{{b}}{name}", COLUMNS, {"name": "c"}, Place("/data/a{b}c", None)),
    ],
)
def test_template_says_where_a_picture_is(template, columns, row, place):
    assert PictureTemplate(template, Path("/data"), columns).place_of(row) == place


@pytest.mark.parametrize(
    "value", [None, "", "../x", "a/../../x", "a\\..\\x", "a\0b", "s3://b/x", "a#b", "a\nb"]
)
def test_values_that_leave_the_folder_have_no_picture(value):
    template = PictureTemplate("images/{key}.jpg", Path("/data"), COLUMNS)
    assert template.place_of({"key": value}) is None


def test_an_absolute_value_has_no_picture():
    template = PictureTemplate("{name}", Path("/data"), COLUMNS)
    assert template.place_of({"name": "/etc/passwd"}) is None
    assert template.place_of({"name": "etc/passwd"}) == Place("/data/etc/passwd", None)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("images/a.jpg", "expected columns in braces"),
        ("images/{nokey}.jpg", "there is no column 'nokey'; there are url, key, name, shard"),
        ("images/{key", "is no template"),
        ("images/{}.jpg", "expected names of columns alone"),
        ("images/{key:>10}.jpg", "expected names of columns alone"),
        ("images/{key!r}.jpg", "expected names of columns alone"),
        ("images/{key.__class__}.jpg", "there is no column 'key.__class__'"),
    ],
)
def test_a_template_that_is_none_is_refused(template, message):
    with pytest.raises(SettingsError) as caught:
        PictureTemplate(template, Path("/data"), COLUMNS)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"images {template}: ")


def test_thumbnails_of_files_are_small_and_their_shape_stays(tmp_path):
    (tmp_path / "a.png").write_bytes(picture("red"))
    (tmp_path / "b.jpg").write_bytes(picture("blue", (1000, 2000), "JPEG"))
    (tmp_path / "c.webp").write_bytes(picture((0, 0, 0, 0), (50, 50), "WEBP", "RGBA"))
    found = make_thumbnails(
        [
            (i, Place(str(tmp_path / name), None))
            for i, name in enumerate(["a.png", "b.jpg", "c.webp"])
        ]
    )
    assert [opened(found[i]).size for i in range(3)] == [(160, 53), (80, 160), (50, 50)]
    assert {opened(one).format for one in found.values()} == {"WEBP"}
    assert opened(found[2]).convert("RGB").getpixel((5, 5)) == (255, 255, 255)  # on white


def test_what_is_no_picture_is_left_out(tmp_path):
    contents = {
        "no.png": b"<svg onload=alert(1)>",
        "cut.png": picture("red")[:60],
        "empty.png": b"",
        "text.jpg": b"\xff\xd8\xff\xe0" + bytes(50),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    bomb = Image.new("1", (20_000, 20_000))
    bomb.save(tmp_path / "bomb.png")
    names = [*contents, "bomb.png", "missing.png"]
    places = [(i, Place(str(tmp_path / name), None)) for i, name in enumerate(names)]
    assert make_thumbnails([*places, (99, Place(str(tmp_path), None))]) == {}


def test_thumbnails_of_tars_are_found_by_key(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for i in range(20):
            for ending, content in (("json", b"{}"), ("png", picture((i, 0, 0), (8, 8)))):
                info = tarfile.TarInfo(f"folder/{i:05d}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("00099.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    path = str(tmp_path / "0.tar")
    asked = [(3, "00003"), (19, "00019"), (4, "00003"), (5, "99999"), (6, "00099")]
    found = make_thumbnails([(row, Place(path, key)) for row, key in asked])
    assert set(found) == {3, 19, 4}
    assert found[3] == found[4]
    assert abs(opened(found[19]).convert("RGB").getpixel((4, 4))[0] - 19) < 6
    assert make_thumbnails([(1, Place(str(tmp_path / "none.tar"), "a"))]) == {}


def test_find_template_looks_into_images(tmp_path):
    folder = tmp_path / "images"
    assert find_template(tmp_path, ["key"]) is None
    folder.mkdir()
    assert find_template(tmp_path, ["key"]) is None
    (folder / "readme.txt").touch()
    (folder / "1.JPG").touch()
    assert find_template(tmp_path, ["key"]) == "images/{key}.JPG"
    (folder / "00000.tar").touch()
    assert find_template(tmp_path, ["key"]) == "images/{shard}.tar#{key}"
    assert find_template(tmp_path, ["name"]) is None
    assert find_template("s3://bucket/data", ["key"]) is None
