"""Write files of k-space as scanners and other programs do, of one phantom of known size.

`phantom` is a head of 176 x 140 mm in air. All files of a scan show it in a field of view of 220 mm, whatever their matrix.
"""

import io
import zipfile

import h5py
import numpy as np
from scipy import io as scipy_io

FIELD = 220.0  # mm
HEADER = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
 <encoding>
  <encodedSpace>
   <matrixSize><x>{ex}</x><y>{ey}</y><z>{ez}</z></matrixSize>
   <fieldOfView_mm><x>{fx}</x><y>{fy}</y><z>5</z></fieldOfView_mm>
  </encodedSpace>
  <reconSpace>
   <matrixSize><x>{rx}</x><y>{ry}</y><z>1</z></matrixSize>
   <fieldOfView_mm><x>{gx}</x><y>{gy}</y><z>5</z></fieldOfView_mm>
  </reconSpace>
  <trajectory>{trajectory}</trajectory>
  <encodingLimits><kspace_encoding_step_1><center>{centre}</center></kspace_encoding_step_1></encodingLimits>
 </encoding>
</ismrmrdHeader>"""
HEAD = np.dtype(
    [
        ("version", "<u2"),
        ("flags", "<u8"),
        ("number_of_samples", "<u2"),
        ("available_channels", "<u2"),
        ("active_channels", "<u2"),
        ("discard_pre", "<u2"),
        ("discard_post", "<u2"),
        ("center_sample", "<u2"),
        ("encoding_space_ref", "<u2"),
        (
            "idx",
            [
                (name, "<u2")
                for name in (
                    "kspace_encode_step_1",
                    "kspace_encode_step_2",
                    "average",
                    "slice",
                    "contrast",
                    "phase",
                    "repetition",
                    "set",
                    "segment",
                )
            ],
        ),
    ]
)
NOISE_FLAG, CALIBRATION_FLAG, REVERSE_FLAG = 1 << 18, 1 << 19, 1 << 21


def phantom(h, w, *, height=FIELD, width=FIELD):
    """A head on `h x w` pixels that cover `height x width` mm, pixel `(h // 2, w // 2)` in the middle."""
    y, x = np.mgrid[:h, :w].astype(float)
    y, x = (y - h // 2) * height / h, (x - w // 2) * width / w
    radius = np.hypot(y / 88, x / 70)
    return (0.5 + 0.4 * np.cos(y / 20) * np.cos(x / 15)) / (1 + np.exp((radius - 1) * 60))


def oversampled(h, w, *, height=2 * FIELD, width=FIELD):
    """The head in the field of view of an oversampled readout, which is longer."""
    return phantom(h, w, height=height, width=width)


def fft(images):
    """Centred k-space of centred images."""
    axes = (-2, -1)
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(images, axes=axes), norm="ortho"), axes=axes).astype(np.complex64)


def coil_kspace(images, *, noise=1e-3, seed=0):
    """K-space `(n, 2, h, w)` of two coils, with noise."""
    rng = np.random.default_rng(seed)
    h, w = images.shape[-2:]
    x = (np.arange(w) - w // 2) / w
    maps = np.stack([np.exp(1j * x) * (0.7 + 0.5 * x), 1j * (0.7 - 0.5 * x)])[:, None, :] * np.ones((1, h, 1))
    kspace = fft(images[:, None] * maps)
    return (kspace + noise * (rng.normal(size=kspace.shape) + 1j * rng.normal(size=kspace.shape))).astype(np.complex64)


def header(encoded, recon, *, encoded_mm, recon_mm, planes=1, centre=None, trajectory="cartesian"):
    """An ISMRMRD header."""
    (ex, ey), (rx, ry), (fx, fy), (gx, gy) = encoded, recon, encoded_mm, recon_mm
    centre = ey // 2 if centre is None else centre
    names = dict(ex=ex, ey=ey, ez=planes, rx=rx, ry=ry, fx=fx, fy=fy, gx=gx, gy=gy, centre=centre, trajectory=trajectory)
    return HEADER.format(**names)


def hdf5(attrs=None, **datasets):
    """The bytes of an HDF5 file."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, values in datasets.items():
            file[name] = values
        file.attrs.update(attrs or {})
    return stream.getvalue()


def ismrmrd(kspace, xml, *, centre=None, skipped=(), reverse=(), averages=1, extra=True, group="dataset"):
    """The bytes of an ISMRMRD file of k-space `(n, c, samples, rows)`, or `(n, c, planes, samples, rows)`.

    The lines come in a mixed order, after two noise scans and a separate calibration line if `extra`.
    """
    rng = np.random.default_rng(1)
    kspace = kspace[:, :, None] if kspace.ndim == 4 else kspace
    n, c, planes, samples, rows = kspace.shape
    records = []
    if extra:
        for flag in (NOISE_FLAG, NOISE_FLAG, CALIBRATION_FLAG):
            records.append((_head(flag, c, samples), 50 * rng.normal(size=(c, samples)).astype(np.complex64)))
    for k, plane, row, average in np.ndindex(n, planes, rows, averages):
        if row in skipped:
            continue
        line = kspace[k, :, plane, :, row] * (1 + (average - (averages - 1) / 2))  # averages differ, their mean is right
        head = _head(REVERSE_FLAG if row in reverse else 0, c, samples)
        if row in reverse:
            line, head["center_sample"] = line[:, ::-1], samples - 1 - samples // 2
        index = head["idx"]
        index["kspace_encode_step_1"] = row - rows // 2 + (rows // 2 if centre is None else centre)
        index["kspace_encode_step_2"], index["slice"], index["average"] = plane, k, average
        records.append((head, line))
    order = rng.permutation(len(records))
    dtype = np.dtype([("head", HEAD), ("traj", h5py.vlen_dtype("<f4")), ("data", h5py.vlen_dtype("<f4"))])
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        table = np.empty(len(records), dtype)
        for place, k in enumerate(order):
            head, line = records[k]
            table["head"][place] = head
            table["traj"][place] = np.zeros(0, "<f4")
            table["data"][place] = np.ascontiguousarray(line, np.complex64).reshape(-1).view("<f4")
        file.create_dataset(f"{group}/data", data=table, dtype=dtype)
        file.create_dataset(f"{group}/xml", data=[xml.encode()], dtype=h5py.string_dtype())
    return stream.getvalue()


def _head(flags, channels, samples):
    head = np.zeros((), HEAD)
    head["flags"], head["number_of_samples"], head["center_sample"] = flags, samples, samples // 2
    head["active_channels"] = head["available_channels"] = channels
    return head


def matlab_5(**arrays):
    """The bytes of a `.mat` file of version 5; arrays as MATLAB shows them."""
    stream = io.BytesIO()
    scipy_io.savemat(stream, arrays)
    return stream.getvalue()


def matlab_7(**arrays):
    """The bytes of a `.mat` file of version 7.3: HDF5 after 512 bytes, axes reversed, complex as fields."""
    stream = io.BytesIO()
    with h5py.File(stream, "w", userblock_size=512) as file:
        for name, values in arrays.items():
            if np.iscomplexobj(values):
                fields = np.empty(values.shape, [("real", "<f8"), ("imag", "<f8")])
                fields["real"], fields["imag"] = values.real, values.imag
                values = fields
            file[name] = values.T
    content = bytearray(stream.getvalue())
    content[:19] = b"MATLAB 7.3 MAT-file"
    return bytes(content)


def bart(array, *, sides=None):
    """The contents of a `.cfl` file and its `.hdr` file, of k-space `(x, y, z, coils)` or with the sixteen `sides`."""
    sides = sides or [*array.shape, *[1] * (16 - array.ndim)]
    head = f"# Dimensions\n{' '.join(map(str, sides))} \n# Command\nphantom -k\n".encode()
    return array.astype("<c8").tobytes(order="F"), head


def zipped(**files):
    """The bytes of a `.zip` archive; `a_cfl=...` becomes the file a.cfl."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("_", "."), content)
    return stream.getvalue()


def extent(image):
    """Height and width of what is brighter than a quarter of the largest value, as shares of the sides."""
    inside = image > 0.25 * image.max()
    ends = [np.flatnonzero(inside.any(1 - axis))[[0, -1]] for axis in (0, 1)]
    return tuple((end[1] - end[0] + 1) / side for end, side in zip(ends, image.shape, strict=True))
