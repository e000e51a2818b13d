"""Who hands what to whom: the gradients of a run, followed through autograd's own graph, and checked.

>>> import torch, openheart as oh
>>> net = torch.nn.Linear(2, 1)
>>> with oh.recording(net) as rec:
...     net(torch.ones(1, 2)).sum().backward()
>>> check_wiring(rec).ok
True
"""

from openheart.wiring.checking import Crossed, WiringCheck, check_wiring
from openheart.wiring.following import UNKNOWN, Wiring, wiring_of

__all__ = ["UNKNOWN", "Crossed", "Wiring", "WiringCheck", "check_wiring", "wiring_of"]
