# SPDX-License-Identifier: Apache-2.0
"""Why a flow of Open vSwitch is not offloaded: from its text, the host's state, the switch's log and rules tried."""
