package migrate

// Readers is a reader for each kind of signer, by the word of the command line.
func Readers() map[string]Reader {
	return map[string]Reader{
		"bind":       ReadBIND,
		"knot":       ReadKnot,
		"powerdns":   ReadPowerDNS,
		"cascade":    ReadCascade,
		"opendnssec": ReadOpenDNSSEC,
	}
}

// Names is the names of those signers, by the same word.
func Names() map[string]string {
	return map[string]string{
		"opendnssec": "OpenDNSSEC",
		"bind":       "BIND",
		"knot":       "Knot DNS",
		"powerdns":   "PowerDNS",
		"cascade":    "Cascade",
	}
}

// Sources is what SOURCE is for each of them, for people.
func Sources() map[string]string {
	return map[string]string{
		"opendnssec": "the folder of conf.xml, or conf.xml itself",
		"bind":       "named.conf",
		"knot":       "knot.conf, or the folder that it is in",
		"powerdns":   "pdns.conf, the folder that it is in, or its SQLite database",
		"cascade":    "config.toml, or the folder that it is in",
	}
}
