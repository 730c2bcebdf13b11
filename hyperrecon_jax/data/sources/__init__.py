"""Somebody's files as the slices of subjects, one module a source: `subject.py` says what a source is.

    fastmri (fastmri_file, fastmri_kspace, coils)     images, or the k-space that the coils of a scanner measured
    abide                                             brains with FreeSurfer's tissues
    folder (series)                                   NIfTI, DICOM, pictures, HDF5, NumPy

`image_files` and `grid` are what they share: reading one file, and bringing its pixels to the training images' grid.
"""
