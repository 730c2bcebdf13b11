"""The images for training and testing. Every source gives a `Dataset`: three splits that share no subject.

Call first a function of `prepare`, which writes a data set into the cache once, and then `read`, which reads it from there:

    dataset = data.mni(size=256, slices=64)                        # synthetic brains; prepares and reads
    dataset = data.read(data.files_folder("fastmri", root=...))    # your files
    dataset = data.arrays(train="a.npy", val="b.npy", test="c.npy")  # `.npy` files, read as they are

The modules:

    dataset        Dataset, Split, Samples: what all sources return, in memory or on disk
    feed           which samples make the batch of a step, and the feed that reads them ahead
    array_files    your own `.npy` files
    prepare        mni, mni_folder, synthetic_folder, files_folder: prepare a data set once
    cache          read, metadata: read a prepared data set
    builder        the prepared data sets as builders of TensorFlow Datasets
    subjects       which subject is in which split; reads every subject once
    population     synthetic brains (template: the anatomy that they share)
    broad          images as varied as scans, of heads (heads) and of no anatomy (scenes), drawn with plane
    sources/       real files as training slices, a module for each source: fastmri, abide, folder
    kspace, coils  the recipe from measured k-space to a sample, and its steps for several coils
    grid           cutting, padding and resampling
    volumes/       one file that is opened in the explorer: read it, write a result back

`sources/fastmri.py` (`read`) prepares a fastMRI file (.h5) for training. It opens the file with `sources/fastmri_file.py`,
which reads through `volumes/hdf5.py`, and turns the k-space into samples with `sources/scans.py` and `kspace.py`. Training
reads these samples from the cache, not from the .h5 file. The explorer also uses `volumes/hdf5.py` and `kspace.py`.
"""

import lazy_loader

# Names are imported on their first use, from the modules in `__init__.pyi`. So `data.volumes` alone does not import JAX.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
