"""A JPEG that contains its depth map: Dynamic Depth 1.0 and, for older readers, GDepth.

Both store inverse depth between near and far in 8 bits (``RangeInverse``): with v = code / 255,
``depth = far near / (far - v (far - near))``.

- GDepth's map is in the extended XMP of the JPEG (Adobe's XMP specification, part 3, 1.1.3.1: segments of at most 64 KiB,
  joined by a GUID that is the MD5 of the whole).
- Dynamic Depth's map follows the end of the JPEG; the container's directory points to it.

Sources: the Dynamic Depth 1.0 specification and Google's "Depthmap Metadata".
"""

from __future__ import annotations

import base64
import hashlib
import io
import struct
from pathlib import Path
from typing import Any

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from sfdfd.io.colour_spaces import srgb_profile
from sfdfd.io.embedded_metadata import build_exif
from sfdfd.io.images import to_bytes
from sfdfd.optics.depth import normalized_inverse_depth

__all__ = ["write_portrait"]

XMP, EXTENDED = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
CHUNK = 65_000
"""Bytes of extended XMP in a segment; with its header it must stay below 65,533."""
DD = "http://ns.google.com/photos/dd/1.0/"
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"


def write_portrait(
    path: Path,
    depth_m: Float[Tensor, "h w"],
    aif: Float[Tensor, "3 h w"],
    *,
    metric: bool = True,
    focal_length_m: float | None = None,
    f_number: float | None = None,
    exif: Image.Exif | None = None,
) -> dict[str, float]:
    """Write the AIF as a JPEG that contains its depth.

    Args:
        path: the file.
        depth_m: (H,W) in metres, finite; in any unit if not ``metric``.
        aif: (3,H,W) in [0, 1].
        metric: whether the unit is written.
        focal_length_m, f_number: for the EXIF, where they are known and ``exif`` is None.
        exif: of the picture, see :mod:`sfdfd.io.embedded_metadata`.

    Returns:
        "near" and "far", the depths of the codes 0 and 255.
    """
    near, far = float(depth_m.min()), float(depth_m.max())
    far = max(far, near * (1 + 1e-6))
    # the specification has 0 near
    codes = to_bytes(1 - normalized_inverse_depth(depth_m.float().cpu(), near, far)).numpy()
    depth_png = _encoded(Image.fromarray(codes), "PNG")
    picture = Image.fromarray(to_bytes(aif.float().cpu()).permute(1, 2, 0).numpy())
    if exif is None:
        height, width = depth_m.shape
        exif = build_exif(None, (height, width), camera={"focal_length_m": focal_length_m, "f_number": f_number})
    jpeg = _encoded(picture, "JPEG", quality=95, subsampling=0, exif=exif, icc_profile=srgb_profile())
    extended = _extended(depth_png)
    guid = hashlib.md5(extended, usedforsecurity=False).hexdigest().upper()
    values = {"near": f"{near:.6g}", "far": f"{far:.6g}", "guid": guid, "length": str(len(depth_png))}
    segments = [_segment(XMP + _standard(metric, values))]
    for start in range(0, len(extended), CHUNK):
        header = EXTENDED + guid.encode() + struct.pack(">II", len(extended), start)
        segments.append(_segment(header + extended[start : start + CHUNK]))
    offset = 2  # skip SOI, JFIF and EXIF
    while jpeg[offset : offset + 2] in (b"\xff\xe0", b"\xff\xe1"):
        offset += 2 + struct.unpack(">H", jpeg[offset + 2 : offset + 4])[0]
    path.write_bytes(jpeg[:offset] + b"".join(segments) + jpeg[offset:] + depth_png)
    return {"near": float(values["near"]), "far": float(values["far"])}


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _segment(content: bytes) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content


def _packet(description: str) -> bytes:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="sfdfd">'
        f'<rdf:RDF xmlns:rdf="{RDF}">{description}</rdf:RDF></x:xmpmeta>'
    ).encode("ascii")


def _extended(depth_png: bytes) -> bytes:
    """Return the XMP packet with GDepth's map."""
    data = base64.b64encode(depth_png).decode()
    return _packet(
        f'<rdf:Description rdf:about="" xmlns:GDepth="http://ns.google.com/photos/1.0/depthmap/" GDepth:Data="{data}"/>'
    )


def _standard(metric: bool, values: dict[str, str]) -> bytes:
    """Return the XMP packet that describes the picture and says where its depth map is."""
    gdepth_units, dd_units = ('GDepth:Units="m" ', "Meters") if metric else ("", "None")
    spaces = {
        "xmpNote": "http://ns.adobe.com/xmp/note/",
        "GDepth": "http://ns.google.com/photos/1.0/depthmap/",
        "Device": f"{DD}device/",
        "Profile": f"{DD}profile/",
        "Camera": f"{DD}camera/",
        "DepthMap": f"{DD}depthmap/",
        "Image": f"{DD}image/",
        "Container": f"{DD}container/",
        "Item": f"{DD}item/",
    }
    return _packet(
        f'<rdf:Description rdf:about="" {" ".join(f"xmlns:{key}={value!r}" for key, value in spaces.items())} '
        'xmpNote:HasExtendedXMP="{guid}" GDepth:Format="RangeInverse" GDepth:Near="{near}" GDepth:Far="{far}" '
        'GDepth:Mime="image/png" GDepth:MeasureType="OpticalAxis" {gdepth_units}GDepth:Software="sfdfd">'
        '<Device:Profiles><rdf:Seq><rdf:li rdf:parseType="Resource"><Device:Profile rdf:parseType="Resource">'
        "<Profile:Type>DepthPhoto</Profile:Type><Profile:CameraIndices><rdf:Seq><rdf:li>0</rdf:li></rdf:Seq></Profile:CameraIndices>"
        "</Device:Profile></rdf:li></rdf:Seq></Device:Profiles>"
        '<Device:Cameras><rdf:Seq><rdf:li rdf:parseType="Resource"><Device:Camera rdf:parseType="Resource">'
        '<Camera:Image Image:ItemSemantic="Primary" Image:ItemURI="primary_image"/>'
        '<Camera:DepthMap DepthMap:Format="RangeInverse" DepthMap:Near="{near}" DepthMap:Far="{far}" '
        'DepthMap:Units="{dd_units}" DepthMap:DepthURI="depth_map" DepthMap:ItemSemantic="Depth" '
        'DepthMap:MeasureType="OpticalAxis" DepthMap:Software="sfdfd"/>'
        "</Device:Camera></rdf:li></rdf:Seq></Device:Cameras>"
        '<Device:Container rdf:parseType="Resource"><Container:Directory><rdf:Seq>'
        '<rdf:li rdf:parseType="Resource"><Container:Item Item:Mime="image/jpeg" Item:Length="0" '
        'Item:DataURI="primary_image"/></rdf:li>'
        '<rdf:li rdf:parseType="Resource"><Container:Item Item:Mime="image/png" Item:Length="{length}" '
        'Item:DataURI="depth_map"/></rdf:li>'
        "</rdf:Seq></Container:Directory></Device:Container></rdf:Description>".format(
            **values, gdepth_units=gdepth_units, dd_units=dd_units
        )
    )
