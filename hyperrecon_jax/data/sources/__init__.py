"""Real files as the slices of subjects. Each source is a module; `base.py` has their contract.

    fastmri     fastMRI: images, or the k-space that the coils of a scanner measured (fastmri_file opens the files)
    abide       ABIDE: brains with the tissues of FreeSurfer
    folder      a folder of images, or of files of k-space (series groups the files of a scan)

`image_files` reads an image file from disk, for `abide` and `folder`; `scans` makes samples of measured k-space, for
`fastmri` and `folder`.
"""
