"""Images that cannot be read: an error that names the file, or left out, counted and listed; nothing else changes place."""

import io
import json
from pathlib import Path
import tempfile
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
from PIL import Image, UnidentifiedImageError
import pytest

from amalgam_tf import amalgamation, data, evaluate
from amalgam_tf.data import pipeline, transforms
from amalgam_tf.data.examples import Examples
from amalgam_tf.errors import UserError
from amalgam_tf.methods import teacher as method
from amalgam_tf.report import run as report
from amalgam_tf.tasks import Task
from amalgam_tf.training.loop import Run
from configs import common

FORMATS = {"jpg": {"quality": 90}, "progressive.jpg": {"quality": 90, "progressive": True}, "png": {}, "bmp": {}, "gif": {}}


def encoded(kind: str, side: int = 16) -> bytes:
    picture = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    form = {"jpg": "JPEG"}.get(kind.rpartition(".")[2], kind.upper())
    Image.fromarray(picture).save(file := io.BytesIO(), form, **FORMATS[kind])
    return file.getvalue()


def written(folder: Path, *contents: bytes, suffix: str = "jpg") -> Examples:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{i}.{suffix}" for i in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return Examples("mine", tuple(p.name for p in paths), paths, (), {})


class TestOneImage:
    @pytest.mark.parametrize("kind", FORMATS)
    def test_a_file_that_was_cut_off_is_an_error_wherever(self, tmp_path, kind):
        whole = encoded(kind)
        last = len(whole) - (2 if kind == "gif" else 1)  # the last byte of a GIF is a mere end mark, which no decoder needs
        cuts = sorted({*range(1, len(whole), len(whole) // 12), last})
        examples = written(tmp_path, whole, *(whole[:cut] for cut in cuts), suffix=kind.rpartition(".")[2])
        assert pipeline.readable(examples).tolist() == [True] + [False] * len(cuts)

    def test_what_is_read_here_is_read_by_pillow(self, tmp_path):
        whole = encoded("jpg")
        examples = written(tmp_path, *(whole[:cut] for cut in range(0, len(whole) + 1, 7)), whole)
        for path, good in zip(examples.images, pipeline.readable(examples), strict=True):
            try:
                with Image.open(path) as picture:
                    picture.load()
            except (OSError, UnidentifiedImageError):
                assert not good
            else:
                assert good

    @pytest.mark.parametrize("content", [b"", b"a text", b"<html></html>", b"\0" * 400, encoded("jpg")[:200]])
    def test_one_sentence_names_the_file_the_reason_and_the_mend(self, tmp_path, content):
        examples = written(tmp_path, encoded("jpg"), content)
        with pytest.raises(UserError, match=r"the image .*1\.jpg cannot be read \(\w.*\): replace .* data.on_bad_image=skip") as caught:
            pipeline.pixels(examples, 8)
        assert "\n" not in str(caught.value) and "{{" not in str(caught.value) and "Iterator" not in str(caught.value)

    def test_the_content_decides_not_the_suffix(self, tmp_path):
        assert pipeline.readable(written(tmp_path, encoded("png"), encoded("gif"))).all()

    def test_single_files_are_never_skipped(self, tmp_path):
        written(tmp_path, b"a text")
        with mock.patch("amalgam_tf.evaluate.teachers.load_any") as load:
            load.return_value.preprocessing.size, load.return_value.card = 8, {}
            with pytest.raises(UserError, match=r"0\.jpg cannot be read"):
                evaluate.files(tmp_path, [str(tmp_path / "0.jpg")])
            with pytest.raises(UserError, match=r"none\.jpg cannot be read"):
                evaluate.files(tmp_path, [str(tmp_path / "none.jpg")])


@given(draw=st.data(), kind=st.sampled_from(sorted(FORMATS)))
@settings(max_examples=25, deadline=None)
def test_damaged_bytes_give_pixels_or_a_user_error(draw, kind):
    content = bytearray(encoded(kind))
    for place, byte in draw.draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=4)):
        content[place] = byte
    start = draw.draw(st.integers(0, len(content)))
    del content[start : start + draw.draw(st.integers(0, 40))]
    with tempfile.TemporaryDirectory() as root:
        examples = written(Path(root), bytes(content))
        try:
            pixels = pipeline.pixels(examples, 8)
        except UserError as error:
            assert "0.jpg cannot be read" in str(error) and "\n" not in str(error)
        else:
            assert pixels.shape == (1, 8, 8, 3) and pixels.dtype == np.uint8
        assert pipeline.readable(examples).tolist() == ["pixels" in locals()]


# -- leaving out ------------------------------------------------------------------------------------------------------
COUNT = 40
BAD = {"train": ("3.png", "8.png", "21.png"), "test": ("5.png",)}


@pytest.fixture
def section(tmp_path):
    """Grey images whose label says whether they are bright, some of them cut off; the data section of a config that skips these."""
    for split, bad in BAD.items():
        (tmp_path / split).mkdir()
        rows = ["path,bright"]
        for i in range(COUNT):
            grey = 100 * (i % 3 == 0) + i + (128 if split == "test" else 0) // 8
            Image.fromarray(np.full((16, 16, 3), grey, np.uint8)).save(path := tmp_path / split / f"{i}.png")
            rows.append(f"{split}/{i}.png,{int(i % 3 == 0)}")
            if path.name in bad:
                path.write_bytes(path.read_bytes()[:-20])
        (tmp_path / f"{split}.csv").write_text("\n".join(rows))
    section = common.scenes()
    section.update(dict(reader="folder", root=str(tmp_path), train="train.csv", test="test.csv", hold_out=0.3, on_bad_image="skip"))
    section.cache_dir = str(tmp_path / "cache")
    return section


def paths(examples: Examples) -> list[str]:
    return [p.name for p in examples.images]


class TestSkip:
    def test_by_default_the_first_bad_image_is_an_error(self, section):
        section.on_bad_image = data.DEFAULTS["on_bad_image"]
        parts = data.parts(section)
        assert sum(map(len, parts)) == 2 * COUNT and data.notes(*parts) == []
        with pytest.raises(UserError, match=r"test/5\.png cannot be read"):
            pipeline.pixels(parts.test, 8)

    def test_what_is_left_stays_together_and_keeps_its_side(self, section):
        parts = data.parts(section)
        for part in parts:
            pixels = pipeline.pixels(part, 8)
            assert np.array_equal(part.labels["bright"], pixels[:, 0, 0, 0] >= 100 + 16 * (part is parts.test))
            assert [int(Path(i).stem) for i in part.ids] == [int(Path(p).stem) for p in paths(part)]
        section.on_bad_image = "fail"
        for part, listed in zip(parts, data.parts(section), strict=True):
            assert paths(part) == [p for p in paths(listed) if p not in BAD["test" if part is parts.test else "train"]]
            assert len(part) + len(part.skipped) == len(listed)  # nothing is lost
            assert set(part.ids) | set(part.skipped) == set(listed.ids) and not set(part.ids) & set(part.skipped)
        assert sorted(p.name for part in parts[:2] for p in part.skipped.values()) == sorted(BAD["train"])
        assert parts.test.name == "test/readable" and parts.train.name == "train/readable/rest"

    def test_nothing_changes_where_all_can_be_read(self, section, tmp_path):
        for split, bad in BAD.items():
            for name in bad:
                (tmp_path / split / name).write_bytes((tmp_path / split / "0.png").read_bytes())
        skipping = data.parts(section)
        section.on_bad_image = "fail"
        assert [p.fingerprint for p in skipping] == [p.fingerprint for p in data.parts(section)]

    def test_the_verdict_is_kept_until_a_file_changes(self, section, tmp_path):
        before = data.load(section, "test.csv")
        with mock.patch.object(transforms, "decode_whole", side_effect=AssertionError("decoded again")):
            again = data.load(section, "test.csv")
        assert (again.ids, again.skipped, again.fingerprint) == (before.ids, before.skipped, before.fingerprint)
        (tmp_path / "test" / "5.png").write_bytes((tmp_path / "test" / "4.png").read_bytes())
        assert not data.load(section, "test.csv").skipped

    def test_notes_count_and_name(self, section):
        notes = data.notes(*data.parts(section))
        assert len(notes) >= 2 and f"note: 1 of {COUNT} images of test/readable cannot be read" in notes[-1]
        assert notes[-1].endswith("test/5.png")
        many = Examples("m", ("a",), [Path("a")], (), {}, skipped={str(i): Path(f"{i}.jpg") for i in range(9)})
        assert data.notes(many)[0].endswith("0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg, and 4 more (results.json lists them)")

    def test_no_image_left_and_another_word(self, section, tmp_path):
        for path in (tmp_path / "test").iterdir():
            path.write_bytes(b"")
        with pytest.raises(UserError, match=r"none of the 40 images of test can be read, .*test/0\.png first"):
            data.parts(section)
        section.on_bad_image = "skipp"
        with pytest.raises(UserError, match="unknown data.on_bad_image 'skipp': did you mean 'skip'"):
            data.parts(section)

    def test_pixels_in_memory_are_always_readable(self):
        section = common.scenes(train=8, test=6, size=16)
        section.update(dict(on_bad_image="skip", cache_dir="", hold_out=0.4))
        assert data.load(section, "test").name == data.load({**section, "on_bad_image": "fail"}, "test").name


class TestRuns:
    def test_a_teacher_says_counts_and_lists_them_and_goes_on(self, section, tmp_path, capfd):
        config = common.teacher("test", "one", ["bright"], backbone="resnet8", input_size=16)
        config.data, config.epochs, config.model.width = section, 1, 0.5
        for _ in range(2):  # the second run finds everything done
            with Run(tmp_path / "run", config.to_dict()) as run:
                results = method.train(config, run)
            assert "test/5.png" in capfd.readouterr().out
            assert results["test"]["images"] == COUNT - 1
            assert results["test"]["skipped"] == {"count": 1, "files": [str(tmp_path / "test" / "5.png")]}
            counts = [results[part].get("skipped", {"count": 0})["count"] for part in ("train", "held_out")]
            assert sum(counts) == len(BAD["train"])
        card = json.loads((tmp_path / "run" / "teacher" / "card.json").read_text())
        assert card["measured"]["skipped"]["count"] == 1
        again = evaluate.saved(tmp_path / "run", {})
        assert again["skipped"] == results["test"]["skipped"] and again["per_task"] == results["test"]["teacher"]["per_task"]

    def test_a_student_sees_the_same_images_everywhere(self, section):
        config = common.distill("test", {})
        config.data = section
        images = amalgamation.Images(config, 8, [Task("bright")])
        assert {part: len(e) for part, e in images.unlabelled.items()} == {part: len(p) for part, p in images.pixels.items()}
        assert sum(e.account().get("skipped", {"count": 0})["count"] for e in images.unlabelled.values()) == len(BAD["train"])
        assert len(images.test_pixels) == len(images.test) == images.test.account()["images"] == COUNT - 1
        assert np.array_equal(images.test.labels["bright"], images.test_pixels[:, 0, 0, 0] >= 116)
        assert any("test/5.png" in note for note in images.notes)

    def test_the_report_shows_the_count(self):
        common_part = {"method": "afk", "command": "c", "seed": 0, "commit": "", "precision": "float32", "hardware": "h", "seconds": 1.0}
        test = {"data": "mine/readable", "images": 7}
        said = ["* 2 more test images are unreadable or lack a file and count nowhere (`results.json` lists them)"]
        without = report._facts({**common_part, "test": test})
        assert [
            x for x in report._facts({**common_part, "test": {**test, "skipped": {"count": 2, "files": []}}}) if x not in without
        ] == said
