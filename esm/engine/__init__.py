"""The only room that starts tasks: it joins sources, rules, targets and leases, and knows ports, never adapters."""
