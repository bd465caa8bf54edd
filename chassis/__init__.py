"""What every service shares: settings, logs, errors, audit, time, sealing; gRPC in `rpc`, MongoDB in `mongo`.

Imports no service. Read `errors` first, then `rpc.life`.
"""
