"""Bags are read back by this project and by another library; damage is reported in one line."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mcap.reader import make_reader
from mcap.writer import Writer as McapWriter
from mcap_ros2.decoder import DecoderFactory
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from camseg_core.data.frame_source import SourceFrame
from camseg_core.errors import DataError
from camseg_ros.bag.frames import ReadOptions, read_frames
from camseg_ros.bag.make import IMAGE_TOPIC, BagTopics, new_bag, write_bag
from camseg_ros.bag.read import BagDamaged, ImageBag, read_input
from camseg_ros.bag.storage import is_bag
from camseg_ros.bag.topics import COMPRESSED, RAW

STORE = get_typestore(Stores.ROS2_KILTED)
SECOND = 1_000_000_000


def frames(count: int = 4) -> list[SourceFrame]:
    """Return noise frames of different sizes."""
    generator = np.random.default_rng(7)
    sizes = [(20 + i, 30 + 2 * i) for i in range(count)]
    images = [generator.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    return [
        SourceFrame(1_700_000_000 * SECOND + i * 100_000_003, image, f"{i}")
        for i, image in enumerate(images)
    ]


def message(kind: str, stamp_ns: int, **fields: Any) -> Any:
    """Return a message with a header."""
    header = STORE.types["std_msgs/msg/Header"](
        STORE.types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, SECOND)), "front"
    )
    return STORE.types[kind](header=header, **fields)


def raw(stamp_ns: int) -> Any:
    data = np.arange(2 * 3 * 3, dtype=np.uint8)
    return message(
        RAW, stamp_ns, height=2, width=3, encoding="rgb8", is_bigendian=0, step=9, data=data
    )


def temperature(stamp_ns: int) -> Any:
    return message("sensor_msgs/msg/Temperature", stamp_ns, temperature=20.0, variance=0.0)


def record(
    path: Path,
    topics: dict[str, Callable[[int], Any]],
    storage: StoragePlugin = StoragePlugin.MCAP,
    zstd: bool = False,
) -> Path:
    """Write a bag with three messages on each topic, recorded 1 s after their stamp."""
    writer = Writer(path, version=9, storage_plugin=storage)
    if zstd:
        writer.set_compression(CompressionMode.MESSAGE, CompressionFormat.ZSTD)
    with writer:
        for topic, make in topics.items():
            kind = make(0).__msgtype__
            connection = writer.add_connection(topic, kind, typestore=STORE)
            for i in range(3):
                stamp = (100 + i) * SECOND
                writer.write(connection, stamp + SECOND, STORE.serialize_cdr(make(stamp), kind))
    return path


def test_a_written_bag_reads_back(tmp_path: Path) -> None:
    written = frames()
    path = tmp_path / "bag"
    assert write_bag(iter(written), path) == len(written)
    with ImageBag(path) as bag:
        assert (bag.topic, bag.compressed, bag.count) == (IMAGE_TOPIC, False, len(written))
        for _ in range(2):  # as often as needed
            read = list(bag)
            assert [each.index for each in read] == [0, 1, 2, 3]
            for frame, each in zip(written, read, strict=True):
                height, width = frame.image.shape[:2]
                assert each.stamp_ns == each.recorded_ns == frame.stamp_ns
                assert each.frame_id == "camera"
                assert each.size == (width, height)
                assert (each.message.encoding, each.message.step) == ("rgb8", 3 * width)
                assert np.array_equal(each.message.data.reshape(frame.image.shape), frame.image)


def test_another_library_reads_a_written_bag(tmp_path: Path) -> None:
    written = frames()
    write_bag(iter(written), tmp_path / "bag", BagTopics("/front/image", frame_id="front"))
    with (tmp_path / "bag" / "bag.mcap").open("rb") as file:
        read = list(
            make_reader(
                file, validate_crcs=True, decoder_factories=[DecoderFactory()]
            ).iter_decoded_messages()
        )
    for frame, (schema, channel, recorded, image) in zip(written, read, strict=True):
        assert schema is not None
        assert (channel.topic, schema.name) == ("/front/image", RAW)
        assert recorded.log_time == frame.stamp_ns
        assert image.header.stamp.sec * SECOND + image.header.stamp.nanosec == frame.stamp_ns
        assert (image.header.frame_id, image.encoding, image.is_bigendian) == ("front", "rgb8", 0)
        assert (image.height, image.width, image.step) == (
            *frame.image.shape[:2],
            3 * frame.image.shape[1],
        )
        assert bytes(image.data) == frame.image.tobytes()


def test_the_recorded_bytes_are_kept(tmp_path: Path) -> None:
    write_bag(iter(frames()), tmp_path / "bag")
    with ImageBag(tmp_path / "bag") as bag:
        for each in bag:
            assert bytes(STORE.serialize_cdr(each.message, RAW)) == each.cdr


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize("zstd", [False, True])
def test_bags_of_other_recorders(tmp_path: Path, storage: StoragePlugin, zstd: bool) -> None:
    path = record(tmp_path / "bag", {"/camera": raw, "/temperature": temperature}, storage, zstd)
    for source in [path, path / "metadata.yaml"]:
        with ImageBag(source) as bag:
            images = list(bag)
        assert bag.topic == "/camera"
        assert [each.stamp_ns for each in images] == [100 * SECOND, 101 * SECOND, 102 * SECOND]
        assert [each.recorded_ns for each in images] == [101 * SECOND, 102 * SECOND, 103 * SECOND]


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_a_single_file_and_a_folder_without_metadata(
    tmp_path: Path, storage: StoragePlugin
) -> None:
    path = record(tmp_path / "bag", {"/camera": raw}, storage)
    (path / "metadata.yaml").unlink()
    (file,) = path.iterdir()
    for source in (file, path):
        assert is_bag(source)
        with ImageBag(source) as bag:
            assert len(list(bag)) == bag.count == 3


def test_compressed_images(tmp_path: Path) -> None:
    jpeg = np.asarray(cv2.imencode(".jpg", np.zeros((10, 14, 3), np.uint8))[1]).reshape(-1)
    path = record(
        tmp_path / "bag",
        {"/camera/compressed": lambda stamp: message(COMPRESSED, stamp, format="jpeg", data=jpeg)},
    )
    with ImageBag(path) as bag:
        assert bag.compressed
        assert [each.size for each in bag] == [(14, 10)] * 3


def picture(encoding: str) -> Callable[[int], Any]:
    """Return what makes a raw image of an encoding."""
    size = {"rgb8": 3, "bayer_rggb8": 1, "mono8": 1, "16UC1": 2, "32FC1": 4}[encoding]

    def make(stamp_ns: int) -> Any:
        data = np.zeros(4 * 4 * size, np.uint8)
        fields = {"height": 4, "width": 4, "is_bigendian": 0, "step": 4 * size, "data": data}
        return message(RAW, stamp_ns, encoding=encoding, **fields)

    return make


def compressed(text: str, channels: int) -> Callable[[int], Any]:
    """Return what makes a compressed image of a format."""
    data = np.asarray(cv2.imencode(".png", np.zeros((4, 4, channels), np.uint8))[1]).reshape(-1)
    return lambda stamp_ns: message(COMPRESSED, stamp_ns, format=text, data=data)


@pytest.mark.parametrize(
    ("others", "camera"),
    [
        ({"/camera/labels": picture("mono8")}, picture("rgb8")),
        ({"/depth": picture("16UC1"), "/disparity": picture("32FC1")}, picture("bayer_rggb8")),
        ({"/depth": compressed("16UC1; compressedDepth", 1)}, compressed("jpeg", 3)),
        ({"/mask": compressed("png", 1)}, compressed("rgb8; jpeg compressed bgr8", 3)),
    ],
)
def test_the_only_topic_in_colour_is_chosen_and_named(
    tmp_path: Path, others: dict[str, Callable[[int], Any]], camera: Callable[[int], Any]
) -> None:
    path = record(tmp_path / "bag", {**others, "/z": camera})
    with ImageBag(path) as bag:
        assert bag.topic == "/z"
        assert "reading /z (" in bag.note
        assert all(f"{name} (" in bag.note for name in others)
    with ImageBag(path, next(iter(others))) as bag:
        assert (bag.topic, bag.note) == (next(iter(others)), "")


def test_without_a_topic_in_colour_a_grey_camera_is_advised_and_not_depth(tmp_path: Path) -> None:
    topics = {"/depth": picture("16UC1"), "/grey": picture("mono8"), "/mask": picture("mono8")}
    advice = r"/depth \(16UC1\), /grey \(mono8\), /mask \(mono8\); .* --topic /grey"
    with pytest.raises(DataError, match=advice):
        ImageBag(record(tmp_path / "bag", topics))


@pytest.mark.parametrize("salvage", [False, True])
@pytest.mark.parametrize("other", [temperature, compressed("jpeg", 3)])
def test_a_topic_with_two_types_is_refused(
    tmp_path: Path, other: Callable[[int], Any], salvage: bool
) -> None:
    path, writer = tmp_path / "bag", Writer(tmp_path / "bag", version=9)
    with writer:
        for make in (raw, other):
            kind = make(0).__msgtype__
            connection = writer.add_connection("/camera", kind, typestore=STORE)
            writer.write(connection, SECOND, STORE.serialize_cdr(make(0), kind))
    if salvage:
        (path / "metadata.yaml").write_text("rosbag2_bagfile_information: {")
    for topic in (None, "/camera"):
        with pytest.raises(DataError, match=r"/camera .* several types, sensor_msgs/.* and sensor"):
            ImageBag(path, topic, salvage=salvage)


@pytest.mark.parametrize("name", ["drive.bag", "drive.mcap", "drive.db3", "drive.zst"])
def test_a_bag_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_bag(frames(2), path)
    assert is_bag(path)
    with ImageBag(path) as bag:
        assert len(list(bag)) == 2


@pytest.mark.parametrize(
    ("encoding", "profile", "said"),
    [
        ("ros1", "ros1", "holds ROS 1 messages: convert the ROS 1 bag .* `rosbags-convert --src"),
        ("json", "", "holds json messages, .* `camseg bag make BAG --source FOLDER`"),
        ("protobuf", "ros2", "holds protobuf messages, which ROS 2 cannot read"),
    ],
)
def test_messages_of_another_system_are_named(
    tmp_path: Path, encoding: str, profile: str, said: str
) -> None:
    path = tmp_path / "drive.mcap"
    with path.open("wb") as file:
        writer = McapWriter(file)
        writer.start(profile=profile)
        schema = writer.register_schema("sensor_msgs/Image", "ros1msg", b"uint8 x")
        channel = writer.register_channel("/camera", encoding, schema)
        writer.add_message(channel, SECOND, b"{}", SECOND)
        writer.finish()
    with pytest.raises(DataError, match=rf"^/camera of the bag .*drive.mcap {said}"):
        ImageBag(path, salvage=True)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(
    ("name", "start", "command"),
    [
        ("a.mcap.zstd", b"", "zstd -d {folder}/a.mcap.zstd -o {folder}/a.mcap"),
        ("a.db3.gz", b"", "gunzip -k {folder}/a.db3.gz"),
        ("a.mcap", b"\x28\xb5\x2f\xfd", "mv {folder}/a.mcap {folder}/a.mcap.zst && zstd -d"),
    ],
)
def test_a_packed_file_without_metadata_says_how_to_unpack_it(
    tmp_path: Path, name: str, start: bytes, command: str, inside: bool
) -> None:
    (tmp_path / name).write_bytes(start + b"content")
    path = tmp_path if inside and not start else tmp_path / name
    assert is_bag(path)
    with pytest.raises(DataError, match="is compressed as a whole; unpack it with `") as caught:
        ImageBag(path, salvage=True)
    assert command.format(folder=tmp_path) in str(caught.value)


def test_a_file_of_another_kind_is_not_a_damaged_bag(tmp_path: Path) -> None:
    (tmp_path / "drive.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"drive\.zip is not a bag; name a bag folder, or a"):
        ImageBag(tmp_path / "drive.zip")


def test_one_of_several_topics_must_be_named(tmp_path: Path) -> None:
    path = record(tmp_path / "bag", {"/right": raw, "/left": raw, "/temperature": temperature})
    with pytest.raises(
        DataError,
        match=r"several image topics in the bag .*bag: /left \(rgb8\), /right \(rgb8\); "
        "name one, for example --topic /left",
    ):
        ImageBag(path)
    with ImageBag(path, "/right") as bag:
        assert bag.count == len(list(bag)) == 3
    with pytest.raises(
        DataError,
        match=r"the topic /rear of the bag .*bag is not in it; its image topics: /left, /right",
    ):
        ImageBag(path, "/rear")
    with pytest.raises(
        DataError, match=r"/temperature .* has type sensor_msgs/msg/Temperature, not an image's"
    ):
        ImageBag(path, "/temperature")


def test_a_bag_without_images(tmp_path: Path) -> None:
    path = record(tmp_path / "bag", {"/temperature": temperature})
    with pytest.raises(
        DataError,
        match=r"no image topic in the bag .*bag \(only /temperature\); record the camera's topic",
    ):
        ImageBag(path)


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Write a bag whose file is truncated."""
    path = tmp_path / "bag"
    write_bag(iter(frames()), path)
    file = path / "bag.mcap"
    file.write_bytes(file.read_bytes()[:-4000])
    return path


def test_unreadable_bags_are_reported_in_one_line(tmp_path: Path, damaged: Path) -> None:
    (tmp_path / "empty.mcap").touch()
    (tmp_path / "text.db3").write_text("hello")
    (tmp_path / "folder").mkdir()
    (tmp_path / "old.bag").touch()
    expected = {
        damaged: r"cannot read the bag .*bag: .*; record it again, or repair it with `mcap recover",
        tmp_path / "empty.mcap": r"cannot read the bag .*empty\.mcap: .*; record it again",
        tmp_path / "text.db3": r"cannot read the bag .*text\.db3: .*; record it again",
        tmp_path
        / "folder": "folder is not a bag: no metadata.yaml, .mcap or .db3 in it; name a bag folder",
        tmp_path / "old.bag": r"old\.bag is a ROS 1 bag; convert it with `rosbags-convert",
        record(tmp_path / "drive", {"/t": temperature}, StoragePlugin.SQLITE3, zstd=True).rename(
            tmp_path / "new.bag"
        ): r"new\.bag is a compressed ROS 2 bag, .* rename it with `mv .*new\.bag .*new`",
        tmp_path / "none": r"the bag .*none does not exist; name a bag folder",
    }
    for path, text in expected.items():
        with pytest.raises(DataError, match=text) as caught:
            ImageBag(path)
        assert "\n" not in str(caught.value)


def test_images_before_the_damage_are_read(tmp_path: Path) -> None:
    path = tmp_path / "bag"
    big = [
        SourceFrame(SECOND + i, np.full((700, 700, 3), i, np.uint8), "") for i in range(3)
    ]  # over 1 MiB: a chunk each
    write_bag(iter(big), path)
    file = path / "bag.mcap"
    content = bytearray(file.read_bytes())
    # The length of the string that names the encoding, in the last image.
    at = content.rindex(b"rgb8") - 4
    content[at : at + 4] = b"\xff\xff\xff\x7f"
    file.write_bytes(content)
    with ImageBag(path) as bag:
        images = iter(bag)
        assert [int(next(images).message.data[0]) for _ in range(2)] == [0, 1]
        with pytest.raises(
            DataError, match=r"the bag .* is damaged after image 2 of 3 on /camera/image_raw: "
        ):
            next(images)


def test_a_bag_is_not_overwritten_and_an_unfinished_one_removed(tmp_path: Path) -> None:
    write_bag(iter(frames()), tmp_path / "bag")
    with pytest.raises(DataError, match=r"bag exists already; remove it or name another folder"):
        write_bag(iter(frames()), tmp_path / "bag")
    with pytest.raises(
        DataError, match=r"no frames to write into the bag .*none; check where they come from"
    ):
        write_bag(iter([]), tmp_path / "none")

    def broken() -> Iterator[SourceFrame]:
        yield frames()[0]
        raise DataError("2.png cannot be read")

    with pytest.raises(DataError, match=r"2\.png"):
        write_bag(broken(), tmp_path / "half")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bag"]
    (tmp_path / "file").touch()
    with pytest.raises(
        DataError, match=r"cannot write the bag .*file/bag: .*; check the disk and the permissions"
    ):
        write_bag(iter(frames()), tmp_path / "file" / "bag")


def test_a_bag_appears_when_it_is_whole_and_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "bag"

    def meanwhile() -> Iterator[SourceFrame]:
        yield from frames()
        assert not path.exists()
        path.mkdir()
        (path / "notes.txt").write_text("mine")

    with pytest.raises(DataError, match=r"bag must be new or empty, but something .*all is in"):
        write_bag(meanwhile(), path)
    assert [each.name for each in path.iterdir()] == ["notes.txt"]
    (kept,) = tmp_path.glob("bag.partial-*/bag")
    with ImageBag(kept) as bag:
        assert bag.count == len(frames())


def test_what_the_writer_refuses_is_an_error_of_the_bag(tmp_path: Path) -> None:
    def twice() -> None:
        with new_bag(tmp_path / "bag") as writer:
            for _ in range(2):
                writer.add_connection("/camera", RAW, typestore=STORE)

    with pytest.raises(
        DataError, match=r"cannot write the bag .*bag: Connection can only be added"
    ):
        twice()
    assert not list(tmp_path.iterdir())


def test_is_bag(tmp_path: Path) -> None:
    assert not is_bag(tmp_path)
    assert not is_bag(tmp_path / "video.mp4")
    assert is_bag(tmp_path / "x.mcap")
    assert is_bag(tmp_path / "x.bag")
    (tmp_path / "metadata.yaml").touch()
    assert is_bag(tmp_path)


def killed_recorder(path: Path, *statements: str) -> Path:
    """Write an sqlite3 bag of three images as a recorder leaves it that is killed while it writes.

    The first image is in the file itself; then `statements` are executed, and the rest is written.
    """
    folder = record(path.with_name("whole"), {"/camera": raw}, StoragePlugin.SQLITE3)
    file = folder / "whole.db3"
    (folder / "metadata.yaml").unlink()
    with closing(sqlite3.connect(file)) as database:
        rest = database.execute("SELECT topic_id, timestamp, data FROM messages WHERE id > 1")
        rows = rest.fetchall()
        database.execute("DELETE FROM messages WHERE id > 1")
        database.commit()
        for statement in statements:
            database.execute(statement)
        database.executemany(
            "INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)", rows
        )
        if "journal" not in statements[-1]:
            database.commit()
        shutil.copytree(folder, path)  # closing tidies up
    return path


LOG = ("PRAGMA journal_mode=WAL", "PRAGMA wal_autocheckpoint=0")
JOURNAL = ("PRAGMA cache_size=0", "PRAGMA journal_mode=DELETE")


def test_a_write_ahead_log_is_read_and_left_as_it_is(tmp_path: Path) -> None:
    path = killed_recorder(tmp_path / "killed #1", *LOG)
    before = {each.name: each.read_bytes() for each in path.iterdir()}
    assert len(before["whole.db3-wal"]) > 32
    for source in (path, path / "whole.db3"):
        with ImageBag(source) as bag:
            assert bag.count == 3
            assert [each.stamp_ns // SECOND for each in bag] == [100, 101, 102]
    assert read_input(path).frames == 3  # nothing is damaged
    after = {each.name: each.read_bytes() for each in path.iterdir()}
    assert after == before


def test_a_log_that_holds_everything_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bag"
    path.mkdir()
    whole = record(tmp_path / "whole", {"/camera": raw}, StoragePlugin.SQLITE3) / "whole.db3"
    with closing(sqlite3.connect(path / "bag.db3")) as database:
        for statement in LOG:
            database.execute(statement)
        with closing(sqlite3.connect(whole)) as original:
            database.executescript("\n".join(original.iterdump()))
        shutil.copytree(path, tmp_path / "killed")
    assert (tmp_path / "killed" / "bag.db3").stat().st_size == 4096
    with ImageBag(tmp_path / "killed") as bag:
        assert len(list(bag)) == 3


@pytest.mark.parametrize(
    ("statements", "suffix", "content"),
    [(LOG, "-wal", b"\0" * 4000), (JOURNAL, "-journal", None)],
)
def test_a_log_that_cannot_be_read_is_damage(
    tmp_path: Path, statements: tuple[str, ...], suffix: str, content: bytes | None
) -> None:
    path = killed_recorder(tmp_path / "killed", *statements)
    left = path / f"whole.db3{suffix}"
    if content is not None:
        left.write_bytes(content)
    with ImageBag(path, salvage=True) as bag:
        images = iter(bag)
        next(images)
        with pytest.raises(
            BagDamaged,
            match=rf"damaged after image \d on /camera: whole\.db3{suffix} holds a part of "
            r"whole\.db3 that cannot be read; .* repair it with `sqlite3 whole\.db3 \.recover`",
        ):
            list(images)
    assert left.exists()
    with pytest.raises(BagDamaged):  # a measurement needs all of the bag
        read_input(path)


def split_bag(path: Path, storage: StoragePlugin) -> Path:
    """Write a bag in three files of three images each, with metadata."""
    path.mkdir()
    for number in range(3):
        part = record(path.with_name(f"part{number}"), {"/camera": raw}, storage)
        (file,) = (each for each in part.iterdir() if each.suffix != ".yaml")
        file.rename(path / f"split_{number}{file.suffix}")
    text = (part / "metadata.yaml").read_text()
    names = "".join(f"  - split_{number}{file.suffix}\n" for number in range(3))
    text = text.replace(f"  - {file.name}\n", names).replace("count: 3", "count: 9")
    assert names in text
    (path / "metadata.yaml").write_text(text)
    return path


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_split_bag_that_lacks_a_file_is_damaged(
    tmp_path: Path, storage: StoragePlugin, number: int
) -> None:
    path = split_bag(tmp_path / "split", storage)
    with ImageBag(path) as bag:
        assert len(list(bag)) == 9
    (file,) = path.glob(f"split_{number}.*")
    file.unlink()
    lacks = rf"it lacks {file.name}, which its metadata\.yaml lists; copy it from the recorder"
    with ImageBag(path, salvage=True) as bag:
        images = iter(bag)
        assert [next(images).index for _ in range(6)] == [0, 1, 2, 3, 4, 5]
        with pytest.raises(
            BagDamaged,
            match=rf"split is incomplete \(6 of 9 images on /camera are there\): {lacks}",
        ):
            next(images)
    with pytest.raises(DataError, match=rf"the bag .*split is incomplete: {lacks}"):
        read_input(path)
    (path / "metadata.yaml").unlink()  # then only a gap in the numbers shows
    with ImageBag(path, salvage=True) as bag:
        if number == 1:
            with pytest.raises(
                BagDamaged, match=rf"it lacks {file.name}, as the numbers of its files show"
            ):
                list(bag)
        else:
            assert len(list(bag)) == 6


def test_a_file_with_less_than_its_metadata_promise_is_damaged(tmp_path: Path) -> None:
    path = split_bag(tmp_path / "split", StoragePlugin.MCAP)
    other = record(tmp_path / "other", {"/temperature": temperature}) / "other.mcap"
    other.replace(path / "split_2.mcap")
    with (
        ImageBag(path, salvage=True) as bag,
        pytest.raises(
            BagDamaged,
            match=r"\(6 of 9 images on /camera are there\): its files hold less than its",
        ),
    ):
        list(bag)


def test_a_file_that_its_metadata_lack_is_reported(tmp_path: Path) -> None:
    path = split_bag(tmp_path / "split", StoragePlugin.MCAP)
    shutil.copy(path / "split_2.mcap", path / "split_3.mcap")
    with (
        ImageBag(path, salvage=True) as bag,
        pytest.raises(
            BagDamaged,
            match=r"split is incomplete: split_3\.mcap in its folder is not in its metadata",
        ),
    ):
        list(bag)
    (path / "metadata.yaml").write_text("rosbag2_bagfile_information: [")  # a full disk
    with ImageBag(path, salvage=True) as bag:
        assert bag.count == 12
        with pytest.raises(
            BagDamaged,
            match=r"is incomplete: its metadata\.yaml cannot be read, .* `ros2 bag reindex",
        ):
            list(bag)


def test_metadata_that_count_nothing_do_not_hide_messages(tmp_path: Path) -> None:
    path = record(tmp_path / "bag", {"/camera": raw})
    text = (path / "metadata.yaml").read_text()
    (path / "metadata.yaml").write_text(text.replace("count: 3", "count: 0"))
    with ImageBag(path) as bag:
        assert (bag.count, len(list(bag))) == (3, 3)


@pytest.mark.parametrize("white", [0, 4095])
def test_images_of_twelve_bits_are_scaled_as_asked_and_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, white: int
) -> None:
    def make(stamp_ns: int) -> Any:
        data = np.full((4, 4), 4095, "<u2").view(np.uint8).reshape(-1)
        fields = {"height": 4, "width": 4, "is_bigendian": 0, "step": 8, "data": data}
        return message(RAW, stamp_ns, encoding="mono16", **fields)

    options = ReadOptions(white_level=white)
    with options.open(record(tmp_path / "bag", {"/camera": make})) as bag:
        (first, *_) = list(read_frames(bag, options))
    assert first.image is not None
    assert first.image[0, 0, 0] == (255 if white else 16)
    said = [each.getMessage() for each in caplog.records]
    assert len(said) == (not white)
    assert all(
        "/camera of the bag" in each and "set white_level (--white-level) to 4095" in each
        for each in said
    )
