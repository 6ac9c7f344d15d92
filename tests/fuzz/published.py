"""Published data sets as their authors write them, small, and odd archives of them."""

import io
import tarfile
import zipfile

import imageio.v3 as iio
import numpy as np
from PIL import Image

from tests.fuzz.stacks import pixels


def write_pfm(path, values):
    height, width = values.shape
    path.write_bytes(f"Pf\n{width} {height}\n-1\n".encode() + values[::-1].astype("<f4").tobytes())


def nyu(folder):
    import h5py

    with h5py.File(folder / "labeled.mat", "w") as file:
        file["images"] = np.random.default_rng(0).integers(0, 255, (2, 3, 8, 6), dtype=np.uint8)
        file["depths"] = file["rawDepths"] = np.full((2, 8, 6), 2.0, np.float32)


def ddff12(folder):
    import h5py

    with h5py.File(folder / "my_ddff_trainVal.h5", "w") as file:
        for split in ("train", "val"):
            file[f"stack_{split}"] = np.random.default_rng(0).uniform(0, 255, (1, 3, 8, 12, 3)).astype(np.float32)
            file[f"disp_{split}"] = np.full((1, 8, 12), 0.1, np.float32)


def mobile_depth(folder):
    aligned, calibration = folder / "Aligned" / "Figure6" / "metals", folder / "calibration" / "metal"
    aligned.mkdir(parents=True)
    calibration.mkdir(parents=True)
    for index in range(3):
        iio.imwrite(aligned / f"a{index:02d}.jpg", pixels(index))
        iio.imwrite(aligned / f"{index:02d}.jpg", pixels(index))
    (calibration / "calibrated.txt").write_text("10.0 1.1\n20.0 1.1\n40000.0 1.1\n1200.5\n")


def middlebury(folder):
    scene = folder / "Motorcycle-perfect"
    scene.mkdir(parents=True)
    iio.imwrite(scene / "im0.png", pixels())
    write_pfm(scene / "disp0.pfm", np.random.default_rng(0).uniform(20, 200, (24, 32)))
    (scene / "calib.txt").write_text(
        "cam0=[3979.911 0 1244.772; 0 3979.911 1019.507; 0 0 1]\ncam1=[3979.911 0 1369.115; 0 3979.911 1019.507; 0 0 1]\n"
        "doffs=124.343\nbaseline=193.001\nwidth=2964\nheight=2000\n"
    )


def zedd(folder):
    motors = {1: ("6D3E", 0.82), 2: ("4EA8", 1.2), 5: ("2371", 3.0)}
    (folder / "metadata.txt").write_text(
        "# run\tmotor\tfocus\n" + "".join(f"run_{k}\t{m}\t{f}\n" for k, (m, f) in motors.items())
    )
    scene = folder / "val" / "val_0001"
    (scene / "focus_stack").mkdir(parents=True)
    (scene / "gt").mkdir()
    for run, (motor, _) in motors.items():
        for stop in ("2.8", "16.0"):
            iio.imwrite(scene / "focus_stack" / f"img_run_{run}_motor_{motor}_aperture_F{stop}.jpg", pixels(run))
    np.savetxt(scene / "gt" / "K.txt", np.array([[125.0, 0, 16], [0, 125.0, 12], [0, 0, 1]]))
    np.save(scene / "gt" / "depth.npy", np.full((24, 32), 2, np.float32))


def defocusnet(folder):
    import OpenEXR

    for number in (0, 1):
        for index in range(5):
            Image.fromarray(pixels(index)).save(folder / f"{number:06d}_{index:02d}All.tif")
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        with OpenEXR.File(header, dict.fromkeys("RGB", np.full((24, 32), 1, np.float16))) as file:
            file.write(str(folder / f"{number:06d}Dpt.exr"))


def lightfield(folder):
    scene = folder / "training" / "cotton"
    scene.mkdir(parents=True)
    for index in range(81):
        iio.imwrite(scene / f"input_Cam{index:03d}.png", pixels(index, 16, 16))
    (scene / "parameters.cfg").write_text(
        "[intrinsics]\nfocal_length_mm = 100.0\nsensor_size_mm = 5.0\nfstop = 100.0\n[extrinsics]\nbaseline_mm = 50.0\n"
        "focus_distance_m = 3.0\n[meta]\nscene = cotton\ncategory = training\ndisp_min = -1.0\ndisp_max = 1.0\n"
    )
    write_pfm(scene / "gt_disp_lowres.pfm", np.zeros((16, 16)))


PUBLISHED = (nyu, ddff12, mobile_depth, middlebury, zedd, defocusnet, lightfield)


def mutated_text(content, random_):
    """Numbers of a text file made odd."""
    words = content.decode("utf-8", "replace").split(" ")
    words[random_.randrange(len(words))] = random_.choice(
        ["nan", "inf", "-1", "0", "1e999", "", "x", "9" * 5000, "\0", "ä", "1,5"]
    )
    return " ".join(words).encode()


def archive_of(folder, path, random_):
    """A zip or tar file of a folder, with members that should not be there at times."""
    members = {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
    bad = [
        "../x",
        "/x",
        "a/../../x",
        "C:\\x",
        "..\\x",
        "",
        ".",
        "x" * 300,
        "ä\u202e",
        "a\nb",
        "con",
        "a/./b",
        "x\0y",
        "-x",
        "\udc80",
    ]
    for _ in range(random_.choice([0, 0, 1, 2])):
        members[random_.choice(bad)] = b"x"
    if random_.random() < 0.5:
        with zipfile.ZipFile(
            path.with_suffix(".zip"), "w", random_.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
        ) as archive:
            for name, content in members.items():
                try:
                    archive.writestr(name, content)
                except (ValueError, IndexError):
                    continue
        return path.with_suffix(".zip")
    mode = random_.choice(["", "gz", "bz2", "xz"])
    path = path.with_name(f"{path.name}.tar{'.' * bool(mode)}{mode}")
    with tarfile.open(path, f"w:{mode}") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            if random_.random() < 0.05:
                entry.type = random_.choice([tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, b"?"])
                entry.linkname = random_.choice(["/etc/passwd", "../../x", name])
            try:
                archive.addfile(entry, io.BytesIO(content))
            except (ValueError, IndexError):
                continue
    return path


def absurd_sizes(path, random_):
    """The sizes that the headers of an archive say, made huge."""
    content = bytearray(path.read_bytes())
    if path.suffix == ".zip":
        place = content.rfind(b"PK\x01\x02")
        spot = place + random_.choice([16, 20, 24, 28, 42])
        content[spot : spot + 4] = random_.choice([b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\0\0\0\0"])
    elif path.suffix == ".tar":
        content[124:136] = random_.choice(
            [b"77777777777\0", b"\x80" + b"\xff" * 11, b"-0000000001\0", b"xxxxxxxxxxx\0"]
        )
        content[148:156] = b"        "
        content[148:156] = f"{sum(content[:512]):06o}\0 ".encode()
    path.write_bytes(bytes(content))
