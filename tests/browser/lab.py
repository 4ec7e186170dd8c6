"""JupyterLab and Chromium for the browser tests: start them, open a notebook, use its controls by their labels."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Browser, Locator, Page, Playwright, expect

REPO = Path(__file__).parents[2]
SCREENSHOTS = REPO / "screenshots"
CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
Theme = Literal["light", "dark"]

# The status bar knows the kernel; the notebook's own indicator says idle before there is one.
IDLE = """() => document.querySelector('#jp-main-statusbar')?.innerText.includes('| Idle')"""
# The highest execution count of the notebook, or null while a cell waits or runs.
LAST_RUN = """() => {
    const prompts = [...document.querySelectorAll('.jp-Notebook .jp-InputPrompt')].map(p => p.textContent);
    const counts = prompts.map(p => parseInt(p.slice(1))).filter(n => n > 0);
    return prompts.some(p => p.includes('*')) ? null : Math.max(0, ...counts);
}"""
RUN_ENDED = f"before => ({LAST_RUN})() > before && ({IDLE})()"
# JupyterLab shows errors as it shows stderr; IPython begins them so.
STDERR = '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"]'
TRACEBACK = re.compile(r"Traceback \(most recent call last\)|^\s*Cell In\[\d+\], line")


@dataclass(frozen=True)
class Server:
    """A running JupyterLab that serves the folder `root`."""

    url: str
    token: str
    root: Path
    user_settings: Path

    def request(self, path: str, method: str = "GET") -> Any:
        """The answer of Jupyter's REST API, from JSON."""
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(f"{self.url}/api/{path}", method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.loads(response.read() or b"null")

    def stop_kernels(self) -> None:
        """End every kernel, so that no test pays for the one before."""
        for kernel in self.request("kernels"):
            self.request(f"kernels/{kernel['id']}", "DELETE")

    def set_theme(self, theme: Theme) -> None:
        """The theme of pages opened from now on."""
        folder = self.user_settings / "@jupyterlab" / "apputils-extension"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "themes.jupyterlab-settings").write_text(json.dumps({"theme": THEMES[theme]}))


@contextmanager
def jupyterlab(root: Path, home: Path) -> Iterator[Server]:
    """JupyterLab for the folder `root`, with settings, data and workspaces of its own in the folder `home`."""
    overrides = home / "config" / "labconfig" / "default_setting_overrides.json"
    overrides.parent.mkdir(parents=True)
    quiet = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}
    overrides.write_text(json.dumps(quiet))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")}
    environ |= {f"JUPYTER_{name.upper()}_DIR": str(home / name) for name in ("config", "data", "runtime")}
    environ["IPYTHONDIR"] = str(home / "ipython")
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPO), environ.get("PYTHONPATH")]))
    token, port = secrets.token_hex(16), free_port()
    server = Server(f"http://127.0.0.1:{port}", token, root, home / "config" / "lab" / "user-settings")
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        *("--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"),
        *(f"--ServerApp.root_dir={root}", f"--IdentityProvider.token={token}"),
        *("--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.news_url=None"),
        "--LabApp.extension_manager=readonly",
        # Should pytest be killed, the server ends by itself after ten minutes.
        *("--ServerApp.shutdown_no_activity_timeout=600", "--MappingKernelManager.cull_idle_timeout=600"),
    ]
    log = home / "jupyterlab.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=root, env=environ, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait_for_server(server, process, log)
        yield server
    finally:
        stop(process)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_server(server: Server, process: subprocess.Popen[bytes], log: Path, timeout: float = 60) -> None:
    """Return once the server answers; say what it printed if it does not."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and process.poll() is None:
        try:
            server.request("status")
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()}")


def stop(process: subprocess.Popen[bytes], timeout: float = 20) -> None:
    """End the server, which ends its kernels; kill it if it does not."""
    process.terminate()
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def launch(playwright: Playwright, executable: str) -> Browser:
    """Headless Chromium that looks nothing up on the network by itself."""
    return playwright.chromium.launch(executable_path=executable, args=CHROMIUM_ARGS)


class Lab:
    """A page on JupyterLab and what a person does there; `timeout` arguments are in seconds."""

    def __init__(self, page: Page, server: Server) -> None:
        self.page = page
        self.server = server

    @property
    def outputs(self) -> Locator:
        """The outputs of the notebook's cells."""
        return self.page.locator(".jp-Notebook .jp-Cell-outputArea")

    def open_notebook(self, name: str, timeout: float = 60) -> None:
        """Open a notebook of the server's root alone in a fresh workspace and wait until its kernel is idle."""
        workspace = secrets.token_hex(4)
        self.page.goto(f"{self.server.url}/lab/workspaces/{workspace}/tree/{name}?reset&token={self.server.token}")
        self.page.wait_for_function(f"() => document.querySelector('.jp-Dialog') || ({IDLE})()", timeout=timeout * 1000)
        dialog = self.page.locator(".jp-Dialog")
        if dialog.count():
            raise AssertionError(f"JupyterLab asks before it opens {name}: {dialog.first.inner_text()}")

    def run_all(self, timeout: float = 60) -> None:
        """Run > Run All Cells; return when all cells have run, raise if one failed."""
        before = self.page.evaluate(LAST_RUN) or 0
        self.page.locator(".lm-MenuBar-itemLabel").get_by_text("Run", exact=True).click()
        self.page.locator(".lm-Menu-itemLabel").get_by_text("Run All Cells", exact=True).click()
        self.page.wait_for_function(RUN_ENDED, arg=before, timeout=timeout * 1000)
        error = self.outputs.locator(STDERR).filter(has_text=TRACEBACK)
        if error.count():
            raise AssertionError(f"A cell failed:\n{error.first.inner_text()}")

    def wait_for_text(self, text: str, timeout: float = 30) -> None:
        """Wait until an output shows the text."""
        expect(self.outputs.get_by_text(text).first).to_be_visible(timeout=timeout * 1000)

    def text(self) -> str:
        """What the outputs show as text, figures aside."""
        return "\n".join(self.outputs.all_inner_texts())

    def choose(self, label: str, option: str) -> None:
        """Choose in the drop-down with this label the option with this text."""
        self.outputs.get_by_label(label, exact=True).and_(self.page.locator("select")).select_option(label=option)

    def check(self, label: str, on: bool = True) -> None:
        """Set the checkbox with this label."""
        self.outputs.get_by_label(label, exact=True).set_checked(on)

    def click(self, text: str) -> None:
        """Press the button with this text."""
        self.outputs.get_by_role("button", name=text, exact=True).click()

    def slide(self, label: str, value: float) -> None:
        """Set the slider with this label by typing into its number."""
        name = self.page.locator(".widget-label").get_by_text(label, exact=True)
        readout = self.outputs.locator(".widget-slider").filter(has=name).locator(".widget-readout")
        readout.fill(str(value))
        readout.press("Enter")

    def screenshot(self, name: str) -> Path:
        """Save what the page shows in screenshots/, which git ignores."""
        path = SCREENSHOTS / f"{name}.png"
        self.page.screenshot(path=path)
        return path
