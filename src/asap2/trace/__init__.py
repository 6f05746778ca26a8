# SPDX-License-Identifier: Apache-2.0
"""The ways of packets through a lab: watching them, telling of them, writing them to a capture file.

:mod:`.node` reads what one node's programs and daemon tell, :mod:`.lab` that of all nodes, :mod:`.ways` puts it
together to :class:`.model.Way`, and :mod:`.text` and :mod:`.data` show that. It costs nothing while nobody watches.
"""
