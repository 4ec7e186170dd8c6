"""One JupyterLab and one Chromium for all browser tests, a fresh page for each."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from qexplore.environment import find_browser
from tests.browser.lab import REPO, Lab, Server, jupyterlab, launch

VIEWPORT = (1280, 900)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("browser")
            item.add_marker("alone")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    lab = getattr(item, "funcargs", {}).get("lab")
    if report.when == "call" and report.failed and isinstance(lab, Lab):
        path = lab.screenshot(f"failed-{item.name}")
        report.sections.append(("Screenshot", str(path)))
    return report


@pytest.fixture(scope="session")
def chromium() -> str:
    found = find_browser()
    if found is not None:
        return found
    message = "Chromium was not found: install it (on Debian the package chromium) or set QEXPLORE_CHROMIUM to it."
    if os.environ.get("QEXPLORE_BROWSER") == "required":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def server(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """JupyterLab for a copy of notebooks/; a test may write notebooks of its own into `server.root`."""
    root = tmp_path_factory.mktemp("notebooks")
    if (REPO / "notebooks").exists():
        shutil.copytree(REPO / "notebooks", root, dirs_exist_ok=True)
    with jupyterlab(root, tmp_path_factory.mktemp("jupyter")) as running:
        yield running


# Playwright keeps an event loop running in this thread: it ends with this folder, before other tests.
@pytest.fixture(scope="package")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = launch(playwright, chromium)
        yield running
        running.close()


@pytest.fixture
def lab(browser: Browser, server: Server, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A fresh page; for another size `@pytest.mark.parametrize("lab", [(1280, 720)], indirect=True)`."""
    width, height = getattr(request, "param", VIEWPORT)
    page = browser.new_page(viewport={"width": width, "height": height})
    yield Lab(page, server)
    page.close()
    server.set_theme("light")
    server.stop_kernels()
