"""Small files that claim, or inflate to, gigabytes: refused by what their headers say, before memory is taken."""

import gzip
import io
import struct
import sys
import zipfile
import zlib

import h5py
import nibabel
import numpy as np
import pytest
from faults import kspace_files
from faults.intensity_files import tiff
from helper import run_python

SHAPE = (1024, 512, 512)  # of complex128: 4 GiB
ZEROS = bytes(2**22)
MOST = 200 * 2**20  # bytes that a reader may take


def npz():
    stream, head = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<c16", "fortran_order": False, "shape": SHAPE})
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.npy", head.getvalue() + ZEROS)
    return stream.getvalue()


def nifti():
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.complex128)
    header.set_data_shape(SHAPE[::-1])
    header["magic"], header["vox_offset"] = b"n+1", 352
    return gzip.compress(header.binaryblock + bytes(4) + ZEROS)


def mgz():
    header = nibabel.freesurfer.MGHImage.header_class()
    header.set_data_dtype(np.float32)
    header.set_data_shape((1024, 1024, 1024))
    return gzip.compress(header.binaryblock + ZEROS)


def hdf5(name, dtype, *, userblock_size=0):
    """Chunks that were never written are zeros."""
    stream = io.BytesIO()
    with h5py.File(stream, "w", userblock_size=userblock_size) as file:
        file.create_dataset(name, SHAPE, dtype, chunks=(1, *SHAPE[1:]), compression="gzip")
    return stream.getvalue()


def matlab_7():
    return b"MATLAB 7.3 MAT-file" + hdf5("kspace", "c16", userblock_size=512)[19:]


def matlab_5():
    """A complex matrix of 3 GiB, deflated."""
    rows, columns = 16384, 12288

    def tag(kind, length):
        return struct.pack("<II", kind, length)

    head = tag(6, 8) + struct.pack("<II", 0x806, 0) + tag(5, 8) + struct.pack("<ii", rows, columns) + tag(1, 6)
    head += b"kspace\0\0" + tag(9, rows * columns * 8)
    inflated = zlib.compress(tag(14, len(head) + 8 + 16 * rows * columns) + head + ZEROS)
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x100) + b"IM" + tag(15, len(inflated)) + inflated


def bart():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.hdr", f"# Dimensions\n512 512 1 1 1 1 1 1 1 1 1 1 1 {SHAPE[0]}\n")
        archive.writestr("a.cfl", ZEROS)
    return stream.getvalue()


def ismrmrd():
    """A thousand times the same lines."""
    xml = kspace_files.header((1024, 64), (512, 64), encoded_mm=(2, 1), recon_mm=(1, 1))
    line = np.zeros((8, 1024), np.complex64)
    dtype = np.dtype([("head", kspace_files.HEAD), ("traj", h5py.vlen_dtype("<f4")), ("data", h5py.vlen_dtype("<f4"))])
    table = np.empty(64, dtype)
    for k in range(64):
        table["head"][k], table["traj"][k] = kspace_files._head(0, 8, 1024), np.zeros(0, "<f4")
        table["data"][k] = line.view("<f4").reshape(-1)
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        stored = file.create_dataset("dataset/data", (64_000,), dtype, chunks=(64,), compression="gzip")
        stored[:64] = table
        _, chunk = stored.id.read_direct_chunk((0,))
        for start in range(64, 64_000, 64):
            stored.id.write_direct_chunk((start,), chunk)
        file.create_dataset("dataset/xml", data=[xml.encode()], dtype=h5py.string_dtype())
    return stream.getvalue()


def many_samples():
    """A TIFF file of 4096 numbers a pixel."""
    content = tiff(np.zeros((1024, 1024)), compression="zlib", metadata=None)
    entry = struct.pack("<HHI", 277, 3, 1)
    return content.replace(entry + struct.pack("<H", 1), entry + struct.pack("<H", 4096))


BOMBS = {
    "a.npz": (npz, "must hold at most 134217728 pixels, got 1024 slices of 512 x 512"),
    "a.nii.gz": (nifti, "must hold at most 134217728 pixels, got 1024 axial slices of 512 x 512"),
    "a.mgz": (mgz, "must hold at most 134217728 pixels, got 1024 axial slices of 1024 x 1024"),
    "images.h5": (lambda: hdf5("reconstruction_rss", "f8"), "must hold at most 134217728 pixels"),
    "kspace.h5": (lambda: hdf5("kspace", "c16"), "must hold at most 134217728 pixels"),
    "five.mat": (matlab_5, "must hold at most 134217728 numbers, got `kspace` of shape (16384, 12288)"),
    "seven.mat": (matlab_7, "must hold at most 134217728 numbers, got `kspace` of shape (1024, 512, 512)"),
    "bart.zip": (bart, "must hold k-space of at most 134217728 samples, got 268435456"),
    "lines.h5": (ismrmrd, "must hold lines of at most 134217728 samples together, and its"),
    "a.tif": (many_samples, "must have up to 8 numbers a pixel, got 4096"),
}
READ = """
import pathlib, resource, sys
import h5py, nibabel, PIL.Image, scipy.io, tifffile
from hyperrecon_jax.data import volumes
from hyperrecon_jax.runtime.errors import InputError
for name in sys.argv[1:]:
    content = pathlib.Path(name).read_bytes()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        volumes.read(name, content)
    except InputError as error:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error, flush=True)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bombs")
    for name, (make, _) in BOMBS.items():
        (folder / name).write_bytes(make())
        assert (folder / name).stat().st_size < 2**23
    result = run_python("-W", "ignore", "-c", READ, *BOMBS, cwd=folder)
    assert result.returncode == 0, result.stderr
    lines = [line.partition(" ") for line in result.stdout.splitlines()]
    return {sentence.partition(" ")[0]: (int(grown), sentence) for grown, _, sentence in lines}


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_that_claims_gigabytes_is_refused_before_memory_is_taken(answers, name):
    grown, sentence = answers[name]
    assert sentence.startswith(f"{name} {BOMBS[name][1]}")
    assert grown * (1 if sys.platform == "darwin" else 1024) < MOST
