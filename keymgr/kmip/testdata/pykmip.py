# Starts PyKMIP's server, which wants ssl.wrap_socket: Python 3.12 has none any more.
import ssl
if not hasattr(ssl, "wrap_socket"):
    def wrap_socket(sock, keyfile, certfile, server_side, cert_reqs, ssl_version, ca_certs,
                    do_handshake_on_connect, suppress_ragged_eofs, ciphers):
        context = ssl.SSLContext(ssl_version)
        context.verify_mode = cert_reqs
        context.load_verify_locations(ca_certs)
        context.load_cert_chain(certfile, keyfile)
        context.set_ciphers(ciphers)
        return context.wrap_socket(sock, server_side=server_side, do_handshake_on_connect=do_handshake_on_connect,
                                   suppress_ragged_eofs=suppress_ragged_eofs)
    ssl.wrap_socket = wrap_socket
from kmip.services.server.server import main
main()
