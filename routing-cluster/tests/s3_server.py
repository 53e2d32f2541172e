"""An S3 server with TLS for tests, in memory: s3_server.py CERTIFICATE KEY BUCKET.

It prints its port when it is ready. It runs in the Python that scripts/ensure-moto prints. moto's own server is one for
development: it ends some answers by dropping the connection, which pgBackRest takes for a fault of the network.
"""

import sys

from cheroot.ssl.builtin import BuiltinSSLAdapter
from cheroot.wsgi import Server
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.test import Client

certificate, key, bucket = sys.argv[1:]
store = DomainDispatcherApplication(create_backend_app)
made = Client(store).put(f"/{bucket}", headers={"Host": "s3.amazonaws.com"})
assert made.status_code == 200, made.get_data(as_text=True)
server = Server(("127.0.0.1", 0), store)
server.ssl_adapter = BuiltinSSLAdapter(certificate, key)
server.prepare()
print(server.bind_addr[1], flush=True)
server.serve()
