"""Volumes of NIfTI and DICOM: axes, order of slices, units, and the public files of both packages.

Every test needs a package that is an extra, and is skipped without it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reverie import InputError
from reverie.cli import main
from reverie.data import load


@pytest.fixture
def nibabel():
    return pytest.importorskip("nibabel", reason="nibabel (extra nifti) is not installed")


@pytest.fixture
def pydicom():
    return pytest.importorskip("pydicom", reason="pydicom (extra dicom) is not installed")


# --- NIfTI ---------------------------------------------------------------------------------------


def test_a_folder_of_nifti_is_volumes_in_one_orientation(nibabel, tmp_path: Path) -> None:
    """The same head stored left to right and right to left is the same row."""
    rng = np.random.default_rng(0)
    heads = rng.integers(0, 2000, (3, 4, 5, 6)).astype(np.int16)  # x, y, z
    for k, head in enumerate(heads):
        flipped = k == 1
        affine = np.diag([-2.0 if flipped else 2.0, 2.0, 3.0, 1.0])
        stored = head[::-1] if flipped else head
        nibabel.Nifti1Image(stored, affine).to_filename(tmp_path / f"{k}.nii.gz")
    data = load(tmp_path)
    assert (data.values.shape, data.values.dtype) == ((3, 1, 6, 5, 4), np.int16)
    assert np.array_equal(data.values[:, 0], heads.transpose(0, 3, 2, 1))
    assert data.notes == ("1 of 3 volumes are turned to RAS+ axes",)


def test_nifti_scales_times_and_slices(nibabel, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    series = rng.normal(size=(4, 5, 6, 7)).astype(np.float32)
    nibabel.Nifti1Image(series, np.eye(4)).to_filename(tmp_path / "bold.nii")
    data = load(tmp_path / "bold.nii")
    assert np.array_equal(data.values[:, 0], series.transpose(3, 2, 1, 0))
    image = nibabel.Nifti1Image(series[..., 0], np.eye(4))
    image.set_data_dtype(np.int16)  # kept as whole numbers with a slope
    image.to_filename(tmp_path / "scaled.nii")
    slices = load(tmp_path / "scaled.nii")
    assert slices.values.shape == (6, 1, 5, 4)
    assert np.abs(slices.values[:, 0] - series[..., 0].transpose(2, 1, 0)).max() < 1e-3
    with pytest.raises(InputError, match="files of a folder are one volume each"):
        load(tmp_path)
    (tmp_path / "scaled.nii").write_bytes((tmp_path / "bold.nii").read_bytes()[:500])
    with pytest.raises(InputError, match="is not a NIfTI volume"):
        load(tmp_path / "scaled.nii")


def test_public_nifti_files(nibabel) -> None:
    """Those that nibabel ships: its own reading, slice by slice."""
    folder = Path(nibabel.__file__).parent / "tests" / "data"
    for name in ("anatomical.nii", "functional.nii", "example4d.nii.gz", "example_nifti2.nii.gz"):
        if not (folder / name).exists():
            pytest.skip("this nibabel ships no test files")
        straight = nibabel.as_closest_canonical(nibabel.load(folder / name))
        wanted = np.asarray(straight.dataobj).squeeze()
        wanted = np.moveaxis(wanted, 3, 0) if wanted.ndim == 4 else wanted
        last = (0, 3, 2, 1) if wanted.ndim == 4 else (2, 1, 0)
        assert np.allclose(load(folder / name).values[:, 0], wanted.transpose(last)), name


# --- DICOM ---------------------------------------------------------------------------------------


def write_slice(pydicom, path: Path, pixels: np.ndarray, **tags) -> None:
    """A slice of 16 bits with these tags."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    plain = dict(
        SOPClassUID=CTImageStorage, SOPInstanceUID=meta.MediaStorageSOPInstanceUID,
        Rows=pixels.shape[0], Columns=pixels.shape[1], SamplesPerPixel=1, BitsAllocated=16,
        BitsStored=16, HighBit=15, PixelRepresentation=0, PhotometricInterpretation="MONOCHROME2",
        PixelData=pixels.astype("<u2").tobytes(),
    )  # fmt: skip
    for name, value in (plain | tags).items():
        setattr(header, name, value)
    header.save_as(path, enforce_file_format=True)


def test_slices_of_a_series_stand_by_their_places(pydicom, tmp_path: Path) -> None:
    """Two series, their files in a foreign order, without endings, in Hounsfield units."""
    rng = np.random.default_rng(2)
    volumes = rng.integers(0, 3000, (2, 5, 4, 3))
    order = rng.permutation(10)
    for k, at in enumerate(order):
        series, depth = divmod(int(at), 5)
        write_slice(
            pydicom, tmp_path / f"IM{k:04d}", volumes[series, depth],
            SeriesInstanceUID=f"1.2.{series + 1}", InstanceNumber=int(rng.integers(1, 99)),
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            ImagePositionPatient=[0, 0, -7 + 2.5 * depth],
            RescaleSlope=1, RescaleIntercept=-1024,
        )  # fmt: skip
    data = load(tmp_path)
    assert data.values.shape == (2, 1, 5, 4, 3)
    first = int(order[0]) // 5  # series stand in the order in which files name them
    assert np.array_equal(data.values[:, 0], volumes[[first, 1 - first]] - 1024.0)
    assert "2 volumes: each is a row" in data.notes


def test_several_times_at_one_place_are_several_volumes(pydicom, tmp_path: Path) -> None:
    volumes = np.arange(2 * 3 * 4).reshape(2, 3, 2, 2)
    for number, (time, depth) in enumerate(np.ndindex(2, 3)):
        write_slice(
            pydicom, tmp_path / f"{number}.dcm", volumes[time, depth], SeriesInstanceUID="1.2",
            InstanceNumber=number + 1, ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            ImagePositionPatient=[0, 0, float(depth)],
        )  # fmt: skip
    assert np.array_equal(load(tmp_path).values[:, 0], volumes)


def test_a_series_of_slices_alone_and_a_damaged_file(pydicom, tmp_path: Path, capsys) -> None:
    for k in range(4):
        write_slice(pydicom, tmp_path / f"{k}.dcm", np.full((2, 3), k), SeriesInstanceUID="1.2",
                    InstanceNumber=4 - k, PhotometricInterpretation="MONOCHROME1")  # fmt: skip
    data = load(tmp_path)
    assert data.values.shape == (4, 1, 2, 3)
    assert data.values[:, 0, 0, 0].tolist() == [65535 - k for k in (3, 2, 1, 0)]
    assert "DICOM slices of MONOCHROME1 are turned to bright on dark" in data.notes
    (tmp_path / "9.dcm").write_bytes((tmp_path / "0.dcm").read_bytes()[:200])
    with pytest.raises(SystemExit) as stop:
        main(["describe", str(tmp_path)])
    assert stop.value.code == 2
    assert "9.dcm" in capsys.readouterr().err


def test_public_dicom_files(pydicom) -> None:
    """Those that pydicom ships: colour by palette and by brightness, frames, doses, bits."""
    from pydicom.pixels import apply_modality_lut, pixel_array

    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    if not (folder / "CT_small.dcm").exists():
        pytest.skip("this pydicom ships no test files")
    for name in ("CT_small.dcm", "MR_small.dcm"):
        header = pydicom.dcmread(folder / name)
        wanted = apply_modality_lut(pixel_array(header), header)
        assert np.array_equal(load(folder / name).values[0, 0], wanted), name
    assert load(folder / "SC_rgb_rle_16bit_2frame.dcm").values.shape == (2, 3, 100, 100)
    dose = load(folder / "rtdose.dcm").values
    header = pydicom.dcmread(folder / "rtdose.dcm")
    assert np.allclose(dose[:, 0], header.pixel_array * float(header.DoseGridScaling))
    with pytest.raises(InputError, match="holds no DICOM picture"):
        load(folder / "rtplan.dcm")
