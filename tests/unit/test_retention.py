"""Which folders of old runs are deleted."""

import os
from datetime import datetime, timezone

from rundbt import retention

OLD, NEW = 1_000_000.0, 3_000_000.0


def test_a_folder_is_deleted_once_nothing_in_it_is_new(tmp_path) -> None:
    for name, inside in (("old", OLD), ("new inside", NEW)):
        (tmp_path / name / "logs").mkdir(parents=True)
        (tmp_path / name / "logs" / "a").touch()
        for path, time in ((tmp_path / name / "logs" / "a", inside), (tmp_path / name / "logs", OLD), (tmp_path / name, OLD)):
            os.utime(path, (time, time))
    folders = [tmp_path / "gone meanwhile", tmp_path / "old", tmp_path / "new inside"]
    retention.delete_folders(folders, datetime.fromtimestamp(2_000_000, timezone.utc))
    assert [path.name for path in tmp_path.iterdir()] == ["new inside"]
