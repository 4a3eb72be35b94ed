"""The Taskonomy reader: layouts written here (files are empty: nothing decodes them), and a real folder in its form."""

from pathlib import Path
import re
import shutil

import numpy as np
import pytest

from amalgam_tf import data
from amalgam_tf.data import splits, taskonomy
from amalgam_tf.errors import UserError

DOMAINS = ("rgb", "depth_zbuffer", "normal", "edge_texture")
TABLE = "id,train,val,test\nAllensville,1,0,0\nhanson,1,0,0\nwiconisco,0,1,0\nihlen,0,0,1\n"


def put(folder: Path, domain: str, point: int, view: int, said: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"point_{point}_view_{view}_domain_{said or domain}.png"
    path.write_bytes(b"")
    return path


def views(points: int, per_point: int = 2):
    return [(p, v) for p in range(points) for v in range(per_point)]


def released(root: Path, buildings=("allensville", "hanson", "wiconisco", "ihlen"), points: int = 3) -> Path:
    for building in buildings:
        for domain in DOMAINS:
            for point, view in views(points):
                put(root / building / domain, domain, point, view)
    (root / "table.csv").write_text(TABLE)
    return root


@pytest.fixture
def root(tmp_path):
    return released(tmp_path / "taskonomy")


def load(root, split, **more):
    return taskonomy.load(root=root, split=split, **({"partition": "table.csv"} if "split_by" not in more else {}), **more)


def refused(message, *arguments, **more):
    with pytest.raises(UserError, match=message) as caught:
        load(*arguments, **more)
    assert "\n" not in str(caught.value)


class TestLayouts:
    def check(self, out, building, points=3):
        assert out.ids == tuple(f"{building}/point_{p}_view_{v}" for p, v in views(points))
        assert [t.name for t in out.tasks] == ["depth_zbuffer", "normal", "edge_texture"]
        assert {(t.kind, t.head, t.codec == t.name) for t in out.tasks} == {("dense", "dense", True)}
        for domain, paths in [("rgb", list(map(str, out.images))), ("depth_zbuffer", out.depth), *out.labels.items()]:
            assert all(Path(p).is_file() for p in paths)
            assert [Path(p).name for p in paths] == [f"point_{p}_view_{v}_domain_{domain}.png" for p, v in views(points)]
        assert all(labels.dtype.kind == "U" for labels in [*out.labels.values(), out.depth]) and not out.skipped

    def test_release(self, root):
        out = load(root, "val")
        self.check(out, "wiconisco")
        assert out.name == "taskonomy/table/val" and Path(out.labels["normal"][0]).parent == root / "wiconisco" / "normal"

    def test_omnidata(self, tmp_path):
        for building in ("wiconisco", "ihlen"):
            for domain in DOMAINS:
                for point, view in views(3):
                    put(tmp_path / domain / "taskonomy" / building, domain, point, view)
        (tmp_path / "rgb" / "replica" / "room").mkdir(parents=True)  # Omnidata has other sets there too
        (tmp_path / "table.csv").write_text(TABLE)
        out = load(tmp_path, "test")
        self.check(out, "ihlen")
        assert all("/taskonomy/ihlen/" in p for p in out.labels["normal"])
        (tmp_path / "normal" / "taskonomy" / "ihlen" / "point_0_view_1_domain_normal.png").unlink()
        (skipped,) = load(tmp_path, "test").skipped.values()
        assert skipped == tmp_path / "normal" / "taskonomy" / "ihlen" / "point_0_view_1_domain_normal.png"
        shutil.rmtree(skipped.parent)
        refused(f"{skipped.with_name('point_0_view_0_domain_normal.png')} is missing first", tmp_path, "test")

    @pytest.mark.parametrize("above", [True, False])
    def test_ke(self, tmp_path, above):
        building = tmp_path / "wiconisco"
        for domain in DOMAINS:
            for point, view in views(3):
                put(building / domain / ("train" if point < 2 else "test") if domain == "rgb" else building / domain, domain, point, view)
        root = tmp_path if above else building
        train, test = (load(root, split, split_by="folder") for split in ("train", "test"))
        self.check(train, "wiconisco", points=2)
        assert test.ids == ("wiconisco/point_2_view_0", "wiconisco/point_2_view_1")
        assert test.name == "taskonomy/by_folder/test" and test.images[0].parent == building / "rgb" / "test"
        refused("no folder rgb/val with pictures .*there are test, train", root, "val", split_by="folder")

    def test_one_building_by_itself(self, tmp_path):
        for domain in DOMAINS:
            for point, view in views(3):
                put(tmp_path / "mine" / domain, domain, point, view)
        out = load(tmp_path / "mine", "train", split_by="image", val_count=1)
        assert len(out) == 5 and all(i.startswith("mine/point_") for i in out.ids)

    def test_points_are_ordered_by_number(self, tmp_path):
        for point in (10, 9, 100, 2):
            put(tmp_path / "mine" / "rgb", "rgb", point, 0)
            put(tmp_path / "mine" / "normal", "normal", point, 0)
        out = load(tmp_path / "mine", "train", split_by="image", val_count=1, tasks=())
        every = [int(re.search(r"point_(\d+)", i)[1]) for i in out.ids]
        assert every == sorted(every) and out.tasks == () and out.depth is None

    def test_none_fits(self, tmp_path):
        (tmp_path / "somewhere" / "else").mkdir(parents=True)
        refused("neither BUILDING/rgb/ nor rgb/taskonomy/BUILDING/ nor rgb/ with files", tmp_path, "val")
        refused("nowhere cannot be read as a folder", tmp_path / "nowhere", "val")
        (tmp_path / "wiconisco" / "rgb").mkdir(parents=True)
        (tmp_path / "table.csv").write_text(TABLE)
        refused("holds no file point_P_view_V_domain_rgb.png of wiconisco", tmp_path, "val")

    def test_a_view_twice(self, root):
        put(root / "wiconisco" / "rgb" / "test", "rgb", 1, 1)
        refused("test/point_1_view_1_domain_rgb.png is also there as .*: remove one", root, "val")


class TestDomains:
    @pytest.mark.parametrize(
        ("old", "new"),
        [
            *[("depth", "depth_zbuffer"), ("mist", "depth_euclidean"), ("edge", "edge_occlusion"), ("edge2d", "edge_texture")],
            *[("keypoint", "keypoints3d"), ("keypoint2d", "keypoints2d"), ("keypoint_2d", "keypoints2d"), ("reshade", "reshading")],
            *[("curvature", "principal_curvature"), ("rgb2sfnorm", "normal"), ("segmentsemantic", "segment_semantic")],
            *[("rgb", "rgb"), ("normal", "normal"), ("zebra", "zebra")],
        ],
    )
    def test_old_names(self, old, new):
        assert taskonomy.canonical(old) == new

    def test_old_names_on_disk_and_asked_for(self, tmp_path):
        for domain, folder, said in [("rgb", "rgb", "rgb"), ("depth", "depth", "depth"), ("edge", "edge2d", "edge2d")]:
            put(tmp_path / "b" / folder, domain, 0, 0, said)
            put(tmp_path / "b" / folder, domain, 1, 0, said)
        out = load(tmp_path, "val", split_by="image", val_count=1, tasks=("edge2d", "depth"))
        assert [t.name for t in out.tasks] == ["edge_texture", "depth_zbuffer"]
        assert re.search("edge2d/point_._view_0_domain_edge2d.png", out.labels["edge_texture"][0])

    def test_semantic_files_have_a_name_of_their_own(self, tmp_path):
        path = put(tmp_path / "segment_semantic", "", 3, 4, "segmentsemantic")
        found = taskonomy._files({"segment_semantic": tmp_path / "segment_semantic"}, "b", "segment_semantic")
        assert found == {taskonomy.View("b", 3, 4): path}

    def test_wanted_in_their_order(self, root):
        out = load(root, "val", tasks=("edge_texture",))
        assert [t.name for t in out.tasks] == ["edge_texture"] and out.depth is None  # nothing here is masked by the z-buffer
        assert load(root, "val", tasks=("normal",)).depth is not None

    def test_pictures_as_truth(self, root):
        out = load(root, "val", tasks=("autoencoding",))
        assert list(out.labels["autoencoding"]) == list(map(str, out.images)) and out.depth is None

    def test_of_the_two_depths_only_one_unless_asked_for(self, root):
        for point, view in views(3):
            put(root / "wiconisco" / "depth_euclidean", "depth_euclidean", point, view)
        assert "depth_euclidean" not in load(root, "val").labels
        both = load(root, "val", tasks=("mist", "depth_zbuffer"))
        assert "domain_depth_euclidean" in both.labels["depth_euclidean"][0] and "domain_depth_zbuffer" in both.depth[0]

    def test_refused(self, root):
        refused("no codec 'segment_semantic'", root, "val", tasks=("segmentsemantic",))
        refused("no codec 'normals' for dense tasks: did you mean 'normal'", root, "val", tasks=("normals",))
        refused("holds no folder keypoints2d, which task 'keypoints2d' needs", root, "val", tasks=("keypoints2d",))
        refused("'edge2d' is asked for twice", root, "val", tasks=("edge2d", "edge_texture"))
        for building in root.iterdir():
            if building.is_dir():
                (building / "depth_zbuffer").rename(building / "set_aside")
        refused("holds no folder depth_zbuffer, which task 'normal' needs", root, "val", tasks=("normal",))


class TestMissingFiles:
    @pytest.fixture
    def lost(self, root):
        files = [root / "wiconisco" / d / f"point_{p}_view_0_domain_{d}.png" for d, p in [("normal", 1), ("depth_zbuffer", 2)]]
        for file in files:
            file.unlink()
        return files

    def test_left_out_and_noted(self, root, lost):
        out = load(root, "val")
        assert (out.name, len(out)) == ("taskonomy/table/val/complete", 4)
        assert out.skipped == {"wiconisco/point_1_view_0": lost[0], "wiconisco/point_2_view_0": lost[1]}
        assert not set(out.skipped) & set(out.ids) and all(len(v) == 4 for v in [out.images, out.depth, *out.labels.values()])
        (note,) = data.notes(out)
        assert note == f"note: 2 of 6 images of {out.name} lack a file of their truth and are left out: {lost[0]}, {lost[1]}"
        assert out.account()["skipped"] == {"count": 2, "files": [str(f) for f in lost]}

    @pytest.mark.parametrize(("task", "skipped"), [("normal", [0, 1]), ("depth_zbuffer", [1]), ("edge_texture", []), ("autoencoding", [])])
    def test_only_what_the_task_needs(self, root, lost, task, skipped):
        assert list(load(root, "val", tasks=(task,)).skipped.values()) == [lost[i] for i in skipped]

    def test_a_whole_domain_of_a_building(self, root):
        for path in (root / "hanson" / "normal").iterdir():
            path.unlink()
        (root / "hanson" / "normal").rmdir()
        out = load(root, "train")
        assert {i.split("/")[0] for i in out.ids} == {"allensville"}
        assert out.skipped["hanson/point_2_view_1"] == root / "hanson" / "normal" / "point_2_view_1_domain_normal.png"
        refused("none of the 6 views of .* has all its files, .*hanson/normal/point_0_view_0.* first", root, "train", buildings=["hanson"])

    def test_a_file_of_another_domain_is_no_truth(self, root):
        path = root / "wiconisco" / "normal" / "point_0_view_0_domain_normal.png"
        path.rename(path.with_name("point_0_view_0_domain_reshading.png"))
        assert load(root, "val").skipped == {"wiconisco/point_0_view_0": path}

    def test_the_split_does_not_depend_on_the_tasks(self, root, lost):
        sides = [load(root, "val", split_by="image", val_count=23, tasks=t) for t in (("edge_texture",), ("normal",))]
        assert sides[0].ids == tuple(sorted({*sides[1].ids, *sides[1].skipped})) and sides[1].skipped


class TestByBuilding:
    def test_the_official_tiny_split(self):
        groups = splits.load_groups("taskonomy")
        assert {k: len(v) for k, v in groups.items()} == {"tiny_train": 25, "tiny_val": 5, "tiny_test": 5}
        assert "wiconisco" in groups["tiny_val"] and groups["tiny_test"] == ("ihlen", "mcdade", "muleshoe", "noxapater", "uvalda")
        assert all(name == name.lower() for names in groups.values() for name in names)

    def test_it_is_the_default(self, tmp_path):
        released(tmp_path, splits.load_groups("taskonomy")["tiny_val"], points=1)
        out = taskonomy.load(root=tmp_path, split="val")
        assert (out.name, len(out)) == ("taskonomy/tiny/val", 10)

    def test_sides(self, root):
        assert {s: {i.split("/")[0] for i in load(root, s).ids} for s in ("train", "val", "test", "val+test")} == {
            **{"train": {"allensville", "hanson"}, "val": {"wiconisco"}, "test": {"ihlen"}, "val+test": {"wiconisco", "ihlen"}}
        }

    def test_upper_and_lower_case_are_one(self, root):
        (root / "hanson").rename(root / "HANSON")
        for more in ({}, {"buildings": ["Hanson", "Allensville"]}):
            assert {i.split("/")[0] for i in load(root, "train", **more).ids} == {"allensville", "HANSON"}

    @pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
    def test_line_ends(self, root, end):
        (root / "table.csv").write_bytes(TABLE.replace("\n", end).encode())
        assert len(load(root, "train")) == 12

    def test_chosen_buildings(self, root):
        own = ["Hanson", "wiconisco"]
        train, val = (load(root, s, buildings=own) for s in ("train", "val"))
        assert {i.split("/")[0] for i in train.ids} == {"hanson"} and {i.split("/")[0] for i in val.ids} == {"wiconisco"}
        assert train.name == "taskonomy/table/train/Hanson+wiconisco"
        refused(r"none of the buildings hanson, wiconisco is in test of partition table.csv", root, "test", buildings=own)
        refused("holds no building 'hansom' .*did you mean 'hanson'", root, "train", buildings=["hansom"])

    def test_buildings_that_are_not_there(self, root):
        (root / "hanson").rename(root / "other")
        refused("lacks 1 of the 2 buildings in train of partition table.csv, hanson first: unpack them, name", root, "train")
        out = load(root, "train", only_available=True)
        assert out.name == "taskonomy/table/train/available" and len(out) == 6
        assert load(root, "train", buildings=["allensville"]).name == "taskonomy/table/train/allensville"

    @pytest.mark.parametrize(
        ("table", "message"),
        [
            ("id,train,val\na,1,0\n", "lacks a column: its first line must be id,train,val,test"),
            ("", "lacks a column"),
            (TABLE + "hanson,0,0,1\n", "line 6: 'hanson' must be one building, there once"),
            (TABLE + "x,1,1,0\n", "line 6: 'x' must be one building"),
            (TABLE + "x\n", "line 6: 'x' must be one building"),
        ],
    )
    def test_broken_tables(self, root, table, message):
        (root / "table.csv").write_text(table)
        refused(message, root, "train")

    def test_unknown_words(self, root):
        refused("unknown split of partition table.csv 'valid': did you mean 'val'", root, "valid")
        with pytest.raises(UserError, match=r"unknown data.taskonomy_partition .*'medium'"):
            taskonomy.load(root=root, split="val", partition="medium")
        with pytest.raises(UserError, match=r"nowhere.csv \(data.taskonomy_partition\) cannot be read"):
            taskonomy.load(root=root, split="val", partition="nowhere.csv")
        refused("unknown data.split_by 'points': did you mean 'point'", root, "val", split_by="points")


class TestAtRandom:
    def test_images_as_s13_says(self, tmp_path):
        released(tmp_path, ["wiconisco"], points=12)
        train, val, test = (load(tmp_path, s, split_by="image", val_count=7) for s in ("train", "val", "test"))
        names = sorted(f"wiconisco/point_{p}_view_{v}" for p, v in views(12))  # as file names sort: point_10 before point_2
        last = [names[i] for i in np.random.default_rng(0).permutation(24)[-7:]]
        assert set(val.ids) == set(last) and len(val) == 7 and val.ids == test.ids
        assert set(train.ids) == set(names) - set(last)
        assert (train.name, val.name) == ("taskonomy/by_image/train", "taskonomy/by_image/val")

    def test_points_stay_together(self, tmp_path):
        released(tmp_path, ["wiconisco", "ihlen"], points=12)
        train, val = (load(tmp_path, s, split_by="point", val_count=7) for s in ("train", "val"))
        points = [{i.rpartition("_view_")[0] for i in side.ids} for side in (train, val)]
        assert not points[0] & points[1] and len(train) + len(val) == 48 and len(val) == 8  # four points, of two views each
        alone = load(tmp_path, "val", split_by="point", val_count=7, buildings=["ihlen"])
        assert {i.split("/")[0] for i in alone.ids} == {"ihlen"} and len(alone) == 8

    def test_counts_and_splits(self, root):
        for count in (0, 24, 3000):
            refused(
                f"val_count={count} leaves a side of the 24 pictures in .* empty: choose 1 to 23",
                root,
                "val",
                split_by="image",
                val_count=count,
            )
        refused("unknown split by point 'rest'", root, "rest", split_by="point", val_count=3)
        refused("takes every point", root, "train", split_by="point", val_count=5, buildings=["ihlen"])


class TestReader:
    def test_options(self, root):
        options = {**data.DEFAULTS, "reader": "taskonomy", "root": str(root), "cache_dir": "", "taskonomy_partition": "table.csv"}
        out = data.load({**options, "classes": "normal, edge2d", "buildings": "hanson, wiconisco"}, "train")
        assert [t.name for t in out.tasks] == ["normal", "edge_texture"] and len(out) == 6
        by = data.load({**options, "split_by": "point", "val_count": 4}, "val")
        assert (len(by), by.name) == (4, "taskonomy/by_point/val")
        parts = data.parts({**options, "test": "val", "hold_out": 0.3})
        assert len(parts.train) + len(parts.held_out) == 12 and len(parts.test) == 6
        assert data.DEFAULTS["val_count"] == 3000 and data.DEFAULTS["split_by"] == "building"
        with pytest.raises(UserError, match="stand in both"):
            data.parts({**options, "split_by": "image", "val_count": 4, "train": "val"})

    def test_missing_files_of_both_kinds_are_told_apart(self, root):
        lost, bad = (root / "wiconisco" / d / f"point_0_view_0_domain_{d}.png" for d in ("normal", "rgb"))
        lost.unlink()
        notes = data.notes(data.Examples("x", ("a",), [bad], (), {}, skipped={"b": lost, "c": bad}))
        assert notes == [
            f"note: 1 of 3 images of x cannot be read and are left out (data.on_bad_image=skip): {bad}",
            f"note: 1 of 3 images of x lack a file of their truth and are left out: {lost}",
        ]

    def test_the_real_folder(self, real_data):
        root = real_data / "taskonomy_like_7scenes"
        options = {**data.DEFAULTS, "reader": "taskonomy", "root": str(root), "cache_dir": "", "split_by": "image", "val_count": 20}
        train, val = (data.load(options, s) for s in ("train", "val"))
        assert (len(train), len(val)) == (80, 20) and not set(train.ids) & set(val.ids)
        assert {t.name for t in val.tasks} == {"depth_zbuffer", "normal", "edge_occlusion", "edge_texture", "keypoints2d"}
        assert not val.skipped and val.images[0].name.replace("rgb", "normal") == Path(val.labels["normal"][0]).name
