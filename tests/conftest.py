"""What several tests need: a real browser, and a loud word when there is none."""

import shutil

import pytest

NO_BROWSER = "no Chromium on this machine: the pages were not looked at (`apt-get install chromium`)"


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a real Chromium; a test that asks for it is skipped, loudly, where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip(NO_BROWSER)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say it once more at the end, where it is read."""
    skipped = terminalreporter.stats.get("skipped", [])
    if any(NO_BROWSER in str(report.longrepr) for report in skipped):
        terminalreporter.write_sep("!", NO_BROWSER, yellow=True, bold=True)
