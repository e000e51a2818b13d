"""Who hands what to whom: the gradients of a run, followed through autograd's own graph, and checked.

>>> import torch, openheart as oh
>>> net = torch.nn.Linear(2, 1)
>>> with oh.recording(net) as rec:
...     net(torch.ones(1, 2)).sum().backward()
>>> check_wiring(rec).ok
True
"""

from openheart.recording.graph import Edge
from openheart.wiring.asking import Place
from openheart.wiring.checking import Crossed, WiringCheck, check_wiring
from openheart.wiring.following import UNKNOWN, Wiring, wiring_of
from openheart.wiring.taking import Arrival, Untold, arrivals, shares_of, slot_of

__all__ = [
    "UNKNOWN",
    "Arrival",
    "Crossed",
    "Edge",
    "Place",
    "Untold",
    "Wiring",
    "WiringCheck",
    "arrivals",
    "check_wiring",
    "shares_of",
    "slot_of",
    "wiring_of",
]
