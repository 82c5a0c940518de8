"""A JupyterHub whose learners all have the course: `jupyterhub -f docs/jupyterhub_config.py`, as root."""

import sys
from pathlib import Path

COURSE = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

c = get_config()  # noqa: F821 - JupyterHub defines it

c.Authenticator.allow_all = True  # whoever has an account on the machine, by its password
c.Spawner.cmd = [str(BIN / "jupyterhub-singleuser")]
c.Spawner.default_url = "/lab"
# The slides' settings, and one thread a learner: on small matrices more make all of them slower.
c.Spawner.environment = {
    "JUPYTER_PATH": str(COURSE / ".jupyter"),
    "JUPYTER_CONFIG_PATH": str(COURSE / ".jupyter"),
    "OMP_NUM_THREADS": "1",
}
# Kernels hold memory until they end: a server that nobody has touched for an hour is ended.
c.JupyterHub.services = [
    {"name": "culler", "command": [sys.executable, "-m", "jupyterhub_idle_culler", "--timeout=3600"]}
]
c.JupyterHub.load_roles = [
    {
        "name": "culler",
        "scopes": ["list:users", "read:users:activity", "read:servers", "delete:servers"],
        "services": ["culler"],
    }
]
