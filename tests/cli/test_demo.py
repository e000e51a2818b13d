"""The guided tour, in both languages."""

import pytest

from openheart.i18n import message


@pytest.mark.parametrize("lang", ["es", "en"])
def test_tour(call, home, lang) -> None:
    answer = call("demo", "--lang", lang, "--folder", "pages")
    assert answer.code == 0, answer.err
    assert answer.err == ""
    for name in ("seed", "digits-cnn"):
        path = home / "pages" / f"openheart-{name}.html"
        assert path.is_file()
        assert str(path) in answer.out
    for number in ("2.7539", "2.8982", "−1.1063", "0.8347"):
        assert number in answer.out
    assert message("demo.small.heading", lang) in answer.out
    assert "✗" not in answer.out
    assert "[bold]" not in answer.out
    assert max(map(len, answer.out.splitlines())) <= max(100, len(str(home)) + 40)


def test_tour_in_a_process_without_pages(process, tmp_path) -> None:
    answer = process("demo", "--no-pages", cwd=tmp_path, LC_ALL="C", NO_COLOR="1")
    assert answer.code == 0, answer.err
    assert "\x1b[" not in answer.out
    assert list(tmp_path.iterdir()) == []
