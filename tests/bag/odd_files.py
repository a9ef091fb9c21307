"""Makes small odd files, as they come from cameras, labelling tools and recorders.

Each has the line that commands say about it; an empty one means that it is read. Run as a script,
this writes them into a folder: `python tests/bag/odd_files.py FOLDER`.
"""

import os
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from mcap.writer import Writer as McapWriter
from rosbags.rosbag2 import Writer

from camseg_ros.bag.make import STORE, image_message, new_bag
from camseg_ros.bag.topics import COMPRESSED, RAW

Make = Callable[[Path], object]

WIDTH, HEIGHT = 64, 48
PICTURE = np.random.default_rng(5).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)


@dataclass(frozen=True)
class OddFile:
    """A file's name, what writes it, and a regular expression of the line about it."""

    name: str
    make: Make
    said: str = ""


def encoded(suffix: str, picture: npt.NDArray[Any] = PICTURE, *options: int) -> bytes:
    """Return an image file's content."""
    return bytes(cv2.imencode(suffix, picture, list(options))[1])


def holds(content: bytes) -> Make:
    """Return what writes a file of this content."""
    return lambda path: path.write_bytes(content)


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, kind: int, *chunks: bytes) -> bytes:
    """Return a PNG of 8 bits with these chunks, whatever its header says."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def flipped(content: bytes, share: float, size: int = 8) -> bytes:
    """Return the content with some bytes inverted."""
    at = int(len(content) * share)
    middle = bytes(each ^ 0xFF for each in content[at : at + size])
    return content[:at] + middle + content[at + size :]


def exif(orientation: int) -> bytes:
    """Return a JPEG with an orientation tag."""
    tag = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = b"MM\x00\x2a\x00\x00\x00\x08" + struct.pack(">H", 1) + tag + bytes(4)
    body = b"Exif\x00\x00" + tiff
    content = encoded(".jpg")
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + content[2:]


NO_ROWS = chunk(b"IDAT", zlib.compress(b""))
DAMAGED = "(is damaged|cannot read .*: it is damaged or not an image|is cut off)"

PICTURES = (
    OddFile("good.png", holds(encoded(".png"))),
    OddFile("empty.png", holds(b""), r"empty\.png is empty \(0 bytes\): copy it again"),
    OddFile("text.png", holds(b"no picture"), r"text\.png: it is damaged or not an image"),
    OddFile("page.jpg", holds(b"<html>404</html>"), r"page\.jpg: it is damaged or not an image"),
    OddFile("cut.png", holds(encoded(".png")[:-40]), rf"cut\.png {DAMAGED}"),
    OddFile("cut.jpg", holds(encoded(".jpg")[:-200]), rf"cut\.jpg {DAMAGED}"),
    OddFile("signature.png", holds(b"\x89PNG\r\n\x1a\n"), r"signature\.png"),
    OddFile("start.jpg", holds(b"\xff\xd8\xff"), r"start\.jpg"),
    OddFile("bits.jpg", holds(flipped(encoded(".jpg"), 0.5)), r"bits\.jpg"),
    OddFile("bits.png", holds(flipped(encoded(".png"), 0.5)), r"bits\.png"),
    OddFile(
        "vast.png",
        holds(png(100_000, 100_000, 2, NO_ROWS)),
        r"vast\.png has more pix",
    ),
    OddFile("wide.png", holds(png(2_000_000, 4, 2)), r"wide\.png"),
    OddFile("void.png", holds(png(0, 0, 2)), r"void\.png"),
    OddFile("rowless.png", holds(png(8, 8, 2, NO_ROWS)), r"rowless\.png"),
    OddFile("apple.jpg", holds(b"\x00\x00\x00\x18ftypheic" + bytes(64)), r"apple\.jpg: it is dam"),
    OddFile("float.tiff", holds(encoded(".tiff", PICTURE.astype(np.float32))), r"float\.tiff"),
    OddFile("pipe.png", lambda path: os.mkfifo(path), r"pipe\.png must be a regular file"),
    OddFile("gone.png", lambda path: path.symlink_to("nowhere"), r"gone\.png: No such file"),
    OddFile("loop.png", lambda path: path.symlink_to(path), r"loop\.png: Too many levels of sym"),
    OddFile(os.fsdecode(b"bytes\xff.png"), holds(b""), r"bytes\\udcff\.png is empty"),
    OddFile("two\nlines.png", holds(b""), r"two\\nlines\.png is empty"),
    OddFile("gray.png", holds(encoded(".png", PICTURE[..., 0]))),
    OddFile("deep.png", holds(encoded(".png", PICTURE.astype(np.uint16) * 257))),
    OddFile("alpha.png", holds(encoded(".png", cv2.cvtColor(PICTURE, cv2.COLOR_BGR2BGRA)))),
    OddFile("renamed.jpg", holds(encoded(".png"))),
    OddFile("turned.jpg", holds(exif(6))),
    OddFile("dot.png", holds(encoded(".png", PICTURE[:1, :1]))),
    OddFile("line.png", holds(encoded(".png", PICTURE[:1]))),
)
"""Pictures; `said` of those that are left out."""

ids = np.zeros((HEIGHT, WIDTH), np.uint8)
ids[:, WIDTH // 2 :] = 13

LABELS = (
    OddFile("good.png", holds(encoded(".png", ids))),
    OddFile("alien.png", holds(encoded(".png", ids + 20)), r"alien\.png holds class ids 20, 33"),
    OddFile("colour.png", holds(encoded(".png")), r"colour\.png has 3 channels, like a colour"),
    OddFile("small.png", holds(encoded(".png", ids[:-1])), r"small\.png is 64x47, but .* is 64x48"),
    OddFile("turned.png", holds(encoded(".png", ids.T)), r"turned\.png is 48x64, but .* is 64x48"),
    OddFile("lossy.png", holds(encoded(".jpg", ids)), r"lossy\.png is a JPEG, which changes class"),
    OddFile("short.png", holds(encoded(".tiff", ids.astype(np.int16))), r"short\.png holds int16"),
    OddFile("deep.png", holds(encoded(".png", ids.astype(np.uint16)))),
    OddFile("high.png", holds(encoded(".png", ids.astype(np.uint16) + 9000)), r"ids 9000, 9013"),
    OddFile("blank.png", holds(b""), r"blank\.png is empty"),
    OddFile("cut.png", holds(encoded(".png", ids)[:-20]), rf"cut\.png {DAMAGED}"),
    OddFile("pipe.png", lambda path: os.mkfifo(path), r"pipe\.png"),
)
"""Labels of a good picture, of Cityscapes train ids."""


def mcap(encoding: str, profile: str = "", messages: int = 1) -> Make:
    """Return what writes an MCAP file with messages of another system."""

    def make(path: Path) -> None:
        with path.open("wb") as file:
            writer = McapWriter(file)
            writer.start(profile=profile)
            schema = writer.register_schema("sensor_msgs/Image", "ros1msg", b"uint8 x")
            channel = writer.register_channel("/camera", encoding, schema)
            for i in range(messages):
                writer.add_message(channel, i, b"{}", i)
            writer.finish()  # type: ignore[no-untyped-call]

    return make


def header(stamp_s: int = 1) -> Any:
    """Return a ROS header."""
    time = STORE.types["builtin_interfaces/msg/Time"](stamp_s, 0)
    return STORE.types["std_msgs/msg/Header"](time, "camera")


def image(encoding: str = "rgb8", pixels: npt.NDArray[np.uint8] = PICTURE, **fields: Any) -> Any:
    """Return an image message, with some of its fields replaced."""
    message = image_message(pixels, "rgb8", header())
    message.encoding = encoding
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def bag(*messages: tuple[str, Any]) -> Make:
    """Return what writes a bag folder with messages by topic."""

    def make(path: Path) -> None:
        with new_bag(path) as writer:
            connections: dict[tuple[str, str], Any] = {}
            for topic, message in messages:
                kind = message.__msgtype__
                if (topic, kind) not in connections:
                    connections[topic, kind] = writer.add_connection(topic, kind, typestore=STORE)
                data = STORE.serialize_cdr(message, kind)
                writer.write(connections[topic, kind], 10**9, data)

    return make


def raw_bag(data: bytes) -> Make:
    """Return what writes a bag with one image message of these bytes."""

    def make(path: Path) -> None:
        with Writer(path, version=8) as writer:
            writer.write(writer.add_connection("/camera", RAW, typestore=STORE), 10**9, data)

    return make


def folder(name: str, content: bytes) -> Make:
    """Return what makes a folder with one file."""

    def make(path: Path) -> None:
        path.mkdir()
        (path / name).write_bytes(content)

    return make


jpeg = STORE.types[COMPRESSED](header(), "jpeg", np.frombuffer(encoded(".jpg"), np.uint8))
broken = STORE.types[COMPRESSED](header(), "jpeg", np.zeros(9, np.uint8))

BAGS = (
    OddFile("good", bag(("/camera", image()))),
    OddFile("empty.mcap", holds(b""), r"cannot read the bag .*empty\.mcap: .*empty"),
    OddFile("text.mcap", holds(b"no bag"), r"cannot read the bag .*text\.mcap: "),
    OddFile("magic.mcap", holds(b"\x89MCAP0\r\n"), r"magic\.mcap"),
    OddFile("empty.db3", holds(b""), r"empty\.db3"),
    OddFile("text.db3", holds(b"no bag" * 99), r"text\.db3: .* `sqlite3 text.db3 \.recover`"),
    OddFile("tables.db3", holds(b"SQLite format 3\0" + bytes(84)), r"tables\.db3"),
    OddFile("drive.bag", holds(b"#ROSBAG V2.0\n"), r"drive\.bag is a ROS 1 bag; convert it with `"),
    OddFile("drive.zip", holds(b"PK\x03\x04"), r"drive\.zip is not a bag; name a bag folder, or a"),
    OddFile("drive.mcap.zstd", holds(b"\x28\xb5\x2f\xfd"), r"zstd is compressed as a whole; un"),
    OddFile("named.mcap", holds(b"\x28\xb5\x2f\xfd0000"), r"named\.mcap is compressed as a whole"),
    OddFile("ros1.mcap", mcap("ros1", "ros1"), r"/camera of the bag .* holds ROS 1 messages"),
    OddFile("json.mcap", mcap("json"), r"/camera of the bag .* holds json messages"),
    OddFile("silent.mcap", mcap("cdr", "ros2", messages=0), r"silent\.mcap"),
    OddFile("vacant", lambda path: path.mkdir(), r"vacant is not a bag: no metadata\.yaml"),
    OddFile("lines", folder("metadata.yaml", b"\xff\xfe: ["), r"the bag .*lines"),
    OddFile("nothing", folder("metadata.yaml", b"{}"), r"the bag .*nothing"),
    OddFile("packed", folder("a.db3.gz", b"\x1f\x8b"), r"is compressed as a whole; unpack it with"),
    OddFile("mixed", bag(("/c", image()), ("/c", jpeg)), r"/c of the bag .* of several types"),
    OddFile("stereo", bag(("/l", image()), ("/r", image())), r"several image topics in the bag .*"),
    OddFile("still", bag(("/t", STORE.types["std_msgs/msg/String"]("x"))), r"no image topic in th"),
    OddFile("alien", bag(("/camera", image("yuv999"))), r"alien: .*yuv999"),
    OddFile("brief", raw_bag(b"\0\1"), r"the bag .*brief"),
    OddFile("none", raw_bag(b""), r"the bag .*none"),
    OddFile("liar", bag(("/camera", image(width=10**6))), r"image 0 on /camera of the bag .*liar"),
    OddFile("flat", bag(("/camera", image(height=0, width=0))), r"image 0 on /camera .*flat"),
    OddFile("torn", bag(("/camera/compressed", broken)), r"image 0 on /camera/compressed .*torn"),
)
"""Bags; `said` of those that cannot be evaluated."""

VIDEOS = (
    OddFile("empty.mp4", holds(b""), r"empty\.mp4 cannot be read as a video"),
    OddFile("text.avi", holds(b"no video"), r"text\.avi cannot be read as a video"),
    OddFile("pipe.mp4", lambda path: os.mkfifo(path), r"pipe\.mp4"),
    OddFile("sound.ogg", holds(b"OggS" + bytes(60)), r"sound\.ogg cannot be read as a video"),
)
"""What is taken for a video, as it is neither a picture nor a bag."""


def write(files: tuple[OddFile, ...], folder: Path) -> dict[str, OddFile]:
    """Write files into a folder, which is made; return them by name."""
    folder.mkdir(parents=True, exist_ok=True)
    for each in files:
        each.make(folder / each.name)
    return {each.name: each for each in files}


if __name__ == "__main__":
    for name, files in (
        ("pictures", PICTURES),
        ("labels", LABELS),
        ("bags", BAGS),
        ("videos", VIDEOS),
    ):
        write(files, Path(sys.argv[1], name))
