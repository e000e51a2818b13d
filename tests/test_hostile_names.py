"""Names that would run, steer a terminal or break an address: they are shown, and nothing else happens."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
import subprocess
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import openheart as oh
from openheart.cli import run
from openheart.live import to_javascript
from openheart.recording import Recording
from openheart.spelling import harmless, spelled

# Without a dot, which no module's name may have.
BOOM = "globalThis['boom']=1;globalThis['document']&&(document['title']='boom')"
NAMES = [
    f"a\n{BOOM}//",
    f"a\r{BOOM}//",
    f"a\u2028{BOOM}//",
    f"a\u2029{BOOM}//",
    f"</script><script>{BOOM}</script>",
    f"<!--<script>{BOOM}",
    f"<img src=x onerror=\"{BOOM}\">",
    f"\" onmouseover=\"{BOOM}\" x=\"",
    f"' onload='{BOOM}' '",
    f"*/{BOOM}/*",
    f"`${{{BOOM}}}`",
    f"');{BOOM};('",
    f"\\\");{BOOM}//",
    "\\",
    "a\\nb",
    "@1",
    "@1 weight",
    "\x1b[2J\x1b]0;boom\x07",
    "\u202egnp exe",
    "\ud800",
    "nul\x00",
    "\\input{/etc/passwd}$%&#_^~}",
    "__proto__",
    "constructor",
    " blank ",
    "w[0]",
    "one:1",
    "relu/x",
    "ñandú",
    "\u00a0",
    "[/red]",
]  # fmt: skip


def _network() -> nn.Module:
    kind: Any = type(f"Net\u2028{BOOM}//</script>\x1b[31m", (nn.Module,), {})

    class Layer(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.register_parameter(name, nn.Parameter(torch.full((2, 2), 0.5)))
            self.own = name

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(x @ self._parameters[self.own])

    Layer.__name__ = Layer.__qualname__ = f"</title><script>{BOOM}</script>"

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        for layer in self.children():
            x = layer(x)
        return x

    kind.forward = forward
    net: nn.Module = kind()
    for name in NAMES:
        net.add_module(name, Layer(name))
    return net


@cache
def _recorded() -> Recording:
    torch.manual_seed(0)
    net = _network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    with oh.recording(net) as rec:
        net(torch.randn(1, 2)).square().sum().backward()
        optimizer.step()
    return rec


@cache
def _forward() -> Recording:
    torch.manual_seed(0)
    return oh.record(_network(), torch.randn(1, 2))


@pytest.fixture(params=["recorded", "loaded"])
def rec(request: pytest.FixtureRequest, tmp_path: Path) -> Recording:
    found = _recorded()
    if request.param == "loaded":
        found.save(tmp_path / "run.oh")
        found = oh.load(tmp_path / "run.oh")
    return found


def test_every_address_can_be_printed_typed_and_explained(rec: Recording) -> None:
    addresses = rec.addresses()
    assert len(addresses) == len(set(addresses))
    assert len({rec.name(value) for value in rec.values}) == len(rec.values)
    assert all(address.isprintable() for address in addresses)
    for value in rec.values:
        assert rec.value(rec.name(value)) is value
        assert json.loads(json.dumps(rec.name(value).encode().decode())) == rec.name(value)
        element = rec.element(rec.address(oh.Element(value, (0,) * len(value.shape))))
        assert element.value is value


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_found_as_it_stands_in_the_network_too(name: str) -> None:
    rec = _recorded()
    value = rec.value(f"{name}.{name}")
    assert value.origin == "parameter"
    assert rec.name(value) == spelled(f"{name}.{name}")
    assert rec.element(f"{name}.{name}[1,0]") == oh.Element(value, (1, 0))
    assert torch.equal(
        rec.value(f"{name}.{name}.after").data, _recorded().model.get_parameter(f"{name}.{name}")
    )  # type: ignore[union-attr]
    assert rec.value(f"{name}.out").origin == "call"
    rec.explain(f"{name}.out[0,1]")


def _strange(text: str) -> list[str]:
    return [
        c for c in text if c not in "\n\u200b" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    ]


def test_nothing_steers_a_terminal(rec: Recording) -> None:
    for value in rec.values[::7]:
        if not value.kept:
            continue
        found = rec.explain(rec.address(oh.Element(value, (0,) * len(value.shape))))
        for said in (
            found.text(),
            str(found),
            found.latex(),
            json.dumps(found.to_dict(), ensure_ascii=False),
        ):
            assert not _strange(said)
    assert not _strange(rec.verify(sample=2).text())
    assert not _strange(repr(rec.calls[0]))


class _Reader(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {key for key, _ in attrs}


def test_nothing_in_a_page_is_code(tmp_path: Path) -> None:
    rec = _forward()
    plain = oh.record(nn.Sequential(nn.Linear(2, 2), nn.Tanh()), torch.randn(1, 2))
    pages = []
    for run_, title in ((plain, "plain"), (rec, f"</title><script>{BOOM}</script>\u2028\ud800\x1b")):
        run_.to_html(tmp_path / "page.html", title=title, story=title, labels=[title, title])
        reader = _Reader()
        pages.append((tmp_path / "page.html").read_text(encoding="utf-8"))
        reader.feed(pages[-1])
        assert not reader.tags & {
            "script",
            "img",
            "iframe",
            "object",
            "embed",
            "link",
            "base",
            "form",
            "input",
        }
        assert not [
            key for key in reader.attributes if key.startswith("on") or key in ("src", "srcset", "action")
        ]
        assert not _strange(pages[-1])
        assert "Content-Security-Policy" in pages[-1].partition("<title>")[0]
    fragment = rec.verify(sample=2).html() + rec.explain(rec.addresses()[-1] + "[0,0]").html()
    reader = _Reader()
    reader.feed(fragment)
    assert not reader.tags & {"script", "img"}


def test_latex_stays_text(rec: Recording) -> None:
    name = "\\input{/etc/passwd}$%&#_^~}"
    said = rec.explain(f"{name}.out[0,1]").latex()
    bare = re.sub(r"\\[{}$%&#_^~]", "", said.replace(r"\\", ""))
    assert "\\input" not in said.replace(r"\textbackslash{}input", "")
    assert bare.count("{") == bare.count("}")
    assert not re.search(r"[$%#&~]", re.sub(r"\\begin\{.*?\\end\{\w+\}", "", bare, flags=re.DOTALL))


def _node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("no Node on this machine (`apt-get install nodejs`)")
    return found


def _chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium on this machine (`apt-get install chromium`)")
    return found


def _titled(page: Path, folder: Path) -> str:
    """The title of a page once a browser has run it."""
    done = subprocess.run(
        [_chromium(), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
         "--virtual-time-budget=2000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, encoding="utf-8", check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert found is not None
    return found.group(1)


def test_a_program_says_names_and_runs_none(rec: Recording, tmp_path: Path) -> None:
    program = to_javascript(rec, tmp_path / "program.mjs")
    value = rec.value(rec.addresses()[-1])
    (tmp_path / "script.mjs").write_text(
        'import { create } from "./program.mjs";\nconst p = create();\n'
        "p.run();\nconsole.log(JSON.stringify([p.addresses(), globalThis.boom ?? 0, Array.from(p.value("
        f"{json.dumps(rec.name(value))}).data)]));\n",
        encoding="utf-8",
    )
    done = subprocess.run([_node(), "script.mjs"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names, boom, numbers = json.loads(done.stdout)
    assert set(rec.addresses()) <= set(names)
    assert boom == 0
    assert numbers == pytest.approx(value.data.flatten().tolist())
    assert "</script" not in program.source.lower()
    assert "<script" not in program.source.lower()


def test_a_browser_runs_a_program_inside_a_page_and_nothing_of_its_names(tmp_path: Path) -> None:
    program = to_javascript(_recorded()).source.replace("export function", "function")
    page = tmp_path / "page.html"
    page.write_text(
        '<!DOCTYPE html><meta charset="utf-8"><title>before</title><body>'
        f'<script type="module">{program}\nif (document.title === "before") '
        "document.title = 'ran ' + create().run().addresses().length;</script>",
        encoding="utf-8",
    )
    assert _titled(page, tmp_path).startswith("ran ")


def test_a_browser_runs_nothing_in_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    _forward().to_html(page, title="as it was")
    text = page.read_text(encoding="utf-8")
    attack = f'<script>{BOOM}</script><img src=x onerror="{BOOM}"></body>'
    page.write_text(text.replace("</body>", attack), encoding="utf-8")
    assert _titled(page, tmp_path).startswith("as it was")
    # The policy is what stops it: without it the same page is taken over.
    page.write_text(re.sub("<meta http-equiv.*?>", "", text).replace("</body>", attack), encoding="utf-8")
    assert _titled(page, tmp_path) == "boom"


def test_every_page_of_the_command_line_has_the_policy(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    for arguments in (
        ["show", "seed"],
        ["explain", "seed", "loss", "--format", "html"],
        ["verify", "seed", "--format", "html"],
        ["intervene", "seed", "--set", "0.weight[0,0]=2", "--format", "html"],
        ["collapse", "seed", "0", "1", "--format", "html"],
    ):
        assert run([*arguments, "-o", str(page)]) == 0
        head = page.read_text(encoding="utf-8").partition("<title>")[0]
        assert "Content-Security-Policy" in head
        assert "default-src 'none'" in head


def test_spelling_keeps_names_apart_and_plain_ones_as_they_are() -> None:
    assert len({spelled(name) for name in NAMES}) == len(set(NAMES))
    assert spelled("layers.0.attn_norm.weight") == "layers.0.attn_norm.weight"
    assert all(harmless(spelled(name)) == spelled(name) for name in NAMES)
    assert all(spelled(name).isprintable() and not spelled(name).startswith("@") for name in NAMES)
