"""Small image files, written here, in which stored numbers mean what people's files make them mean."""

import io
import struct
import zlib

import nibabel
import numpy as np
import pydicom
import tifffile
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset

SIZE = 48


def head():
    """An ellipse with structure on a background of zeros, `(SIZE, SIZE)` in [0, 1]."""
    r, c = (np.mgrid[:SIZE, :SIZE] - SIZE / 2) / (0.45 * SIZE)
    return (r**2 + (c / 0.8) ** 2 < 1) * (0.6 + 0.3 * np.sin(r * 7) * np.cos(c * 5))


def nifti(image):
    """An image as eight equal axial slices, the right on the left."""
    stored = np.stack([image[::-1].T] * 8, axis=-1)
    return nibabel.Nifti1Image(stored, np.diag([-1.0, 1, 1, 1])).to_bytes()


def dicom(pixels, *, syntax=pydicom.uid.ExplicitVRLittleEndian, elements=(), **fields):
    """A file of one or more frames; `elements` are triples (tag, VR, value), for what pydicom would not write by itself."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = pydicom.uid.MRImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = pydicom.uid.generate_uid()
    data.Rows, data.Columns = pixels.shape[-2:]
    if pixels.ndim == 3:
        data.NumberOfFrames = len(pixels)
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8 * pixels.itemsize
    data.HighBit, data.PixelRepresentation = data.BitsStored - 1, int(pixels.dtype.kind == "i")
    if pixels.dtype.kind == "f":
        data.FloatPixelData = pixels.astype("<f4").tobytes()
    else:
        data.PixelData = pixels.tobytes()
        data["PixelData"].VR = "OW" if pixels.itemsize > 1 else "OB"
    for key, value in fields.items():
        setattr(data, key, value)
    for element in elements:
        data.add_new(*element)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, data, enforce_file_format=True)
    return stream.getvalue()


def lut_item(values, first, bits=16):
    """An item of a ModalityLUTSequence."""
    item = Dataset()
    item.add_new(0x00283002, "US", [len(values), first, bits])
    item.add_new(0x00283006, "US", [int(value) for value in values])
    item.ModalityLUTType = "US"
    return item


def palette(red, green, blue):
    """The attributes of a palette of 16 bits."""
    fields = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, table in (("Red", red), ("Green", green), ("Blue", blue)):
        fields[f"{name}PaletteColorLookupTableDescriptor"] = [len(table), 0, 16]
        fields[f"{name}PaletteColorLookupTableData"] = np.asarray(table, "<u2").tobytes()
    return fields


def tiff(pixels, **options):
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, **({"photometric": "minisblack"} | options))
    return stream.getvalue()


def bilevel_tiff(pixels):
    """A picture of two levels, which are stored so that 0 is white, as scanners of documents do. Pillow inverts them."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "TIFF", compression="group4", tiffinfo={262: 0})
    return stream.getvalue()


def png16(pixels):
    """A PNG of 16 bits of one to four channels, `(h, w, channels)`; its rows use all five filters in turn."""
    h, w, channels = pixels.shape
    rows = np.frombuffer(pixels.astype(">u2").tobytes(), np.uint8).reshape(h, -1).astype(int)
    width = 2 * channels
    above = np.vstack([np.zeros_like(rows[:1]), rows[:-1]])
    left, corner = (np.hstack([np.zeros((h, width), int), a[:, :-width]]) for a in (rows, above))
    guess = left + above - corner
    distances = np.abs(np.stack([guess - left, guess - above, guess - corner]))
    nearest = np.choose(distances.argmin(axis=0), [left, above, corner])  # the first of equals, as the standard says
    predictions = np.stack([np.zeros_like(rows), left, above, (left + above) // 2, nearest])
    kinds = np.arange(h) % 5
    filtered = ((rows - predictions[kinds, np.arange(h)]) % 256).astype(np.uint8)
    raw = b"".join(bytes([kind]) + row.tobytes() for kind, row in zip(kinds.tolist(), filtered, strict=True))
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", w, h, 16, colour_type, 0, 0, 0)),
        (b"IDAT", zlib.compress(raw)),
        (b"IEND", b""),
    ]
    packed = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def png_palette(levels, colours):
    """A PNG of 8-bit indices `(h, w)` into colours `(n, 3)`."""
    image = Image.fromarray(levels)
    image = Image.frombytes("P", image.size, levels.tobytes())
    image.putpalette(colours.astype(np.uint8).tobytes())
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def compress(folder, content, syntax):
    """A DICOM file compressed by GDCM as the transfer syntax of this name in pydicom."""
    import gdcm

    names = {"JPEGLossless": "JPEGLosslessProcess14", "JPEGLosslessSV1": "JPEGLosslessProcess14_1"}
    kind = gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, names.get(syntax, syntax)))
    (folder / "plain.dcm").write_bytes(content)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(folder / "plain.dcm"))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(kind)
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(folder / "compressed.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return (folder / "compressed.dcm").read_bytes()
