# SPDX-License-Identifier: Apache-2.0
"""Makes the services' databases, empty, with their tables: ``python -m asap2.openstack.databases ENVIRONMENT TARGET``.

It takes half a minute, so it is done once, at installation, and each cloud begins with copies. It runs with the Python
of OpenStack's virtual environment. nova, placement and glance do it by their own commands; neutron's migrations do
not run on SQLite, so its tables are made from its models and stamped with the newest revisions.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

from asap2.openstack import settings

NAMES = ("nova_api", "nova", "nova_cell0", "placement", "glance", "neutron")

NEUTRON_TABLES = """
import sys
import eventlet; eventlet.monkey_patch()
import sqlalchemy
from neutron.db.migration.models import head
head.get_metadata().create_all(sqlalchemy.create_engine(sys.argv[1]))
"""


def make(environment: Path, target: Path) -> None:
    """Make the databases in the directory *target*, replacing it; CalledProcessError when a command fails."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "databases").mkdir()
        (work / "etc/controller").mkdir(parents=True)
        (work / "log/controller").mkdir(parents=True)
        configurations = {
            "nova": settings.nova(environment, directory=work),
            "cell0": {
                **settings.nova(environment, directory=work),
                "database": {"connection": settings.database("nova_cell0", work)},
            },
            "placement": settings.placement(work),
            "glance": settings.glance(environment, work),
            "neutron": settings.neutron(environment, directory=work),
        }
        for each, sections in configurations.items():
            (work / f"{each}.conf").write_text(settings.ini(sections))

        def run(program: str, configuration: str, *words: str) -> None:
            command = [f"{environment}/bin/{program}", "--config-file", f"{work}/{configuration}.conf", *words]
            subprocess.run(command, check=True, cwd=work)

        run("nova-manage", "nova", "api_db", "sync")
        run("nova-manage", "nova", "cell_v2", "map_cell0", "--database_connection", settings.database("nova_cell0"))
        run("nova-manage", "cell0", "db", "sync", "--local_cell")
        run("nova-manage", "nova", "db", "sync", "--local_cell")
        cell1 = ["--name", "cell1", "--transport-url", settings.TRANSPORT]
        run("nova-manage", "nova", "cell_v2", "create_cell", *cell1, "--database_connection", settings.database("nova"))
        run("placement-manage", "placement", "db", "sync")
        run("glance-manage", "glance", "db_sync")
        neutron = [f"{environment}/bin/python", "-c", NEUTRON_TABLES, settings.database("neutron", work)]
        subprocess.run(neutron, check=True, cwd=work)
        run("neutron-db-manage", "neutron", "stamp", "heads")
        for each in NAMES:
            _finish(work / "databases" / f"{each}.db")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(work / "databases", target)


def _finish(path: Path) -> None:
    """Let readers and one writer work at once (write-ahead log), and put all into the one file."""
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]))
