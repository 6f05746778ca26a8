# SPDX-License-Identifier: Apache-2.0
"""Makes the services' databases, empty, with their tables: ``python -m asap2.openstack.databases ENVIRONMENT TARGET``.

It takes a minute or two, so it is done once, at installation, and each cloud begins with a copy of MariaDB's data
directory. The services do it by their own commands, on a MariaDB that only a socket leads to.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from asap2.openstack import settings
from asap2.openstack.plan import CONTROLLER

NAMES = ("nova_api", "nova", "nova_cell0", "placement", "glance", "neutron")
MARIADB = (
    "/usr/sbin/mariadbd",
    "--no-defaults",
    "--user=root",
    "--skip-log-bin",
    "--skip-name-resolve",
    "--performance-schema=OFF",
    "--innodb-buffer-pool-size=64M",
    "--innodb-log-file-size=16M",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-doublewrite=OFF",
    "--max-connections=500",
    "--character-set-server=utf8mb3",
)
"""MariaDB for data that need not outlive the machine."""
START_SECONDS = 30.0


def make(environment: Path, target: Path) -> None:
    """Make the data directory *target*, replacing it; CalledProcessError when a command fails."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        data, socket = work / "data", work / "socket"
        install = ["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-test-db"]
        subprocess.run([*install, "--auth-root-authentication-method=normal"], check=True)
        where = (f"--datadir={data}", f"--socket={socket}", f"--pid-file={work}/pid")
        with subprocess.Popen([*MARIADB, *where, "--skip-networking"]) as server:
            try:
                _wait_for(socket, server)
                _fill(environment, work, socket)
            finally:
                server.terminate()
                server.wait()
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(data, target)


def _wait_for(socket: Path, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not socket.exists():
        if server.poll() is not None or time.monotonic() > deadline:
            sys.exit("MariaDB does not start")
        time.sleep(0.1)


def _fill(environment: Path, work: Path, socket: Path) -> None:
    words = [f"CREATE USER '{settings.USER}'@'%' IDENTIFIED BY '{settings.PASSWORD}';"]
    words += [f"CREATE DATABASE {name}; GRANT ALL ON {name}.* TO '{settings.USER}'@'%';" for name in NAMES]
    client = ["mariadb", "--no-defaults", "--user=root", f"--socket={socket}"]
    subprocess.run(client, input="\n".join(words), text=True, check=True)
    for name in ("etc", "log"):
        (work / name / CONTROLLER).mkdir(parents=True)
    nova = settings.nova(environment, directory=work)
    configurations = {
        "nova": (nova, {"api_database": "nova_api", "database": "nova"}),
        "cell0": (nova, {"api_database": "nova_api", "database": "nova_cell0"}),
        "placement": (settings.placement(work), {"placement_database": "placement"}),
        "glance": (settings.glance(environment, work), {"database": "glance"}),
        "neutron": (settings.neutron(environment, directory=work), {"database": "neutron"}),
    }
    for name, (sections, databases) in configurations.items():
        local = {section: {"connection": settings.database(one, socket)} for section, one in databases.items()}
        (work / f"{name}.conf").write_text(settings.ini({**sections, **local}))

    def run(program: str, configuration: str, *words: str) -> None:
        command = [f"{environment}/bin/{program}", "--config-file", f"{work}/{configuration}.conf", *words]
        subprocess.run(command, check=True, cwd=work, env={**os.environ, "PYTHONWARNINGS": "ignore"})

    run("nova-manage", "nova", "api_db", "sync")
    run("nova-manage", "nova", "cell_v2", "map_cell0", "--database_connection", settings.database("nova_cell0"))
    run("nova-manage", "cell0", "db", "sync", "--local_cell")
    run("nova-manage", "nova", "db", "sync", "--local_cell")
    cell1 = ["--name", "cell1", "--transport-url", settings.TRANSPORT]
    run("nova-manage", "nova", "cell_v2", "create_cell", *cell1, "--database_connection", settings.database("nova"))
    run("placement-manage", "placement", "db", "sync")
    run("glance-manage", "glance", "db_sync")
    run("neutron-db-manage", "neutron", "upgrade", "heads")


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]))
