"""A JPEG with its depth inside, taken apart by parsers that know nothing of ours."""

import base64
import hashlib
import io
import struct
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch
from PIL import Image

from sfdfd.report.portrait import write_portrait

GDEPTH, DD = "{http://ns.google.com/photos/1.0/depthmap/}", "{http://ns.google.com/photos/dd/1.0/%s/}"
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Noise, so that the map is larger than a segment."""
    path = tmp_path_factory.mktemp("portrait") / "portrait.jpg"
    depth_m, aif = torch.rand(300, 400) * 3 + 0.5, torch.rand(3, 300, 400)
    ends = write_portrait(path, depth_m, aif, focal_length_m=0.05, f_number=8.0)
    return path, depth_m.numpy(), aif.numpy(), ends


def parsed(data):
    """The standard packet, the extended one, and what lies behind the picture: segment by segment, as the JPEG standard and
    Adobe's XMP specification (part 3) have it."""
    assert data[:2] == b"\xff\xd8"
    place, standard, pieces = 2, None, {}
    while data[place + 1] != 0xDA:
        marker, length = data[place + 1], struct.unpack(">H", data[place + 2 : place + 4])[0]
        body = data[place + 4 : place + 2 + length]
        if marker == 0xE1 and body.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            assert standard is None
            standard = ET.fromstring(body.split(b"\0", 1)[1])
        if marker == 0xE1 and body.startswith(b"http://ns.adobe.com/xmp/extension/\0"):
            guid, full, offset = struct.unpack(">32sII", body[35:75])
            pieces[offset] = guid, full, body[75:]
        place += 2 + length
    end = data.index(b"\xff\xd9", place) + 2
    offset, whole, guids = 0, b"", set()
    while offset in pieces:
        guid, full, piece = pieces[offset]
        whole, offset = whole + piece, offset + len(piece)
        guids.add(guid.decode())
    assert len(whole) == full and len(guids) == 1 and len(pieces) > 1
    assert hashlib.md5(whole).hexdigest().upper() in guids
    return standard, ET.fromstring(whole), guids.pop(), data[end:]


def metres(png, near, far):
    """RangeInverse, as Google's Depthmap Metadata has it."""
    code = np.asarray(Image.open(io.BytesIO(png))) / 255
    return far * near / (far - code * (far - near))


def test_the_depth_comes_back_from_both_places(written):
    path, depth_m, _, ends = written
    standard, extended, guid, trailer = parsed(path.read_bytes())
    (said,) = standard.iter(f"{RDF}Description")
    assert said.get("{http://ns.adobe.com/xmp/note/}HasExtendedXMP") == guid
    assert (said.get(f"{GDEPTH}Format"), said.get(f"{GDEPTH}Units")) == ("RangeInverse", "m")
    near, far = float(said.get(f"{GDEPTH}Near")), float(said.get(f"{GDEPTH}Far"))
    assert (near, far) == (ends["near"], ends["far"]) == pytest.approx((depth_m.min(), depth_m.max()), rel=1e-5)
    (more,) = extended.iter(f"{RDF}Description")
    first = base64.b64decode(more.get(f"{GDEPTH}Data"), validate=True)
    items = list(standard.iter(f"{DD % 'container'}Item"))
    assert [one.get(f"{DD % 'item'}DataURI") for one in items] == ["primary_image", "depth_map"]
    length = int(items[1].get(f"{DD % 'item'}Length"))
    assert length == len(trailer) and items[1].get(f"{DD % 'item'}Mime") == said.get(f"{GDEPTH}Mime") == "image/png"
    (about,) = standard.iter(f"{DD % 'camera'}DepthMap")
    assert about.get(f"{DD % 'depthmap'}DepthURI") == "depth_map" and about.get(f"{DD % 'depthmap'}Units") == "Meters"
    step = (1 / near - 1 / far) / 255
    for png in (first, trailer):
        assert np.abs(1 / metres(png, near, far) - 1 / depth_m).max() < 0.51 * step


def test_a_portrait_is_a_readable_jpeg(written):
    path, _, aif, _ = written
    with Image.open(path) as picture:
        assert picture.size == (400, 300) and picture.getexif().get_ifd(0x8769)[0x829D] == 8
        difference = np.asarray(picture.convert("RGB")) / 255 - aif.transpose(1, 2, 0)
    assert np.abs(difference).mean() < 0.03


def test_a_reader_of_xmp_that_is_not_ours_understands_it(written):
    """exiv2, with Adobe's own XMP toolkit in it, which refuses what is no valid RDF."""
    pyexiv2 = pytest.importorskip("pyexiv2")
    with pyexiv2.Image(str(written[0])) as image:
        xmp, exif = image.read_xmp(), image.read_exif()
    camera = "Xmp.Device.Cameras[1]/Device:Camera/Camera:DepthMap/DepthMap:"
    assert xmp["Xmp.GDepth.Format"] == xmp[f"{camera}Format"] == "RangeInverse"
    assert float(xmp["Xmp.GDepth.Near"]) == float(xmp[f"{camera}Near"]) == written[3]["near"]
    assert float(xmp["Xmp.GDepth.Far"]) == float(xmp[f"{camera}Far"]) == written[3]["far"]
    directory = "Xmp.Device.Container/Container:Directory[2]/Container:Item/Item:"
    assert xmp[f"{directory}DataURI"] == xmp[f"{camera}DepthURI"] == "depth_map"
    assert (exif["Exif.Photo.FNumber"], exif["Exif.Photo.FocalLength"]) == ("8/1", "50/1")  # rationals, as EXIF has it


def test_relative_depth_has_no_unit_and_a_plane_can_be_written(tmp_path):
    write_portrait(tmp_path / "p.jpg", torch.full((300, 400), 2.0), torch.rand(3, 300, 400), metric=False)
    data = (tmp_path / "p.jpg").read_bytes()
    assert b"GDepth:Units" not in data and b'DepthMap:Units="None"' in data
