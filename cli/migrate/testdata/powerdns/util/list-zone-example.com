$ORIGIN .
example.com	3600	IN	NS	ns1.example.com.
example.com	3600	IN	SOA	a.misconfigured.dns.server.invalid hostmaster.example.com 0 10800 3600 604800 3600
