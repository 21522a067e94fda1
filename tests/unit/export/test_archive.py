"""Torch archives: what goes in comes out, and equal contents give equal bytes."""

import io
import zipfile

from fedsup_deploy.export.archive import read_records, write_records

RECORDS = {"data.pkl": b"\x80\x02.", "constants/0": bytes(range(200)), "code/__torch__.py": b"pass\n", "empty": b""}


def test_records_come_back_in_order():
    assert list(read_records(write_records(RECORDS)).items()) == list(RECORDS.items())


def test_equal_records_give_equal_bytes():
    assert write_records(RECORDS) == write_records(dict(RECORDS))


def test_every_record_starts_on_a_boundary_of_64_bytes_and_has_no_date():
    content = write_records(RECORDS)

    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for info in archive.infolist():
            data = archive.read(info)
            start = content.index(data, info.header_offset + 30 + len(info.filename)) if data else None
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
            assert info.compress_type == zipfile.ZIP_STORED
            assert start is None or start % 64 == 0
