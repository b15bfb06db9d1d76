This is a Native zone
Zone has following allowed TSIG key(s): xfr
Metadata items: 
	ALLOW-AXFR-FROM	AUTO-NS
	ALLOW-AXFR-FROM	192.0.2.0/24
	ALSO-NOTIFY	127.0.0.1:5300
	NSEC3PARAM	1 0 0 -
	PUBLISH-CDNSKEY	1
	PUBLISH-CDS	2
	SOA-EDIT	INCEPTION-INCREMENT
	TSIG-ALLOW-AXFR	xfr
Zone has hashed NSEC3 semantics, configuration: 1 0 0 -
keys: 
ID = 1 (CSK), flags = 257, tag = 52792, algo = 13, bits = 256	  Active	 Published  ( ECDSAP256SHA256 ) 
CSK DNSKEY = example.com. IN DNSKEY 257 3 13 9Q8CPF6RPoiWLgLAJRYqTcRkyWXcU60iYGMbFgCzIQLuJxaT6YlRvo9lydHih/upp66Ilz0fcT4LHa7qnGPshw== ; ( ECDSAP256SHA256 )
DS = example.com. IN DS 52792 13 2 af95df202d3a1b07dfa270b9c8b891e0ea14552daf9a8258deba2d541b511689 ; ( SHA256 digest )
DS = example.com. IN DS 52792 13 4 e6297a512da1f80ef3b9ec404558fb72b9e5d465695dd16b50783fa38793cad48cb64c6914bde7029c032171e021498e ; ( SHA-384 digest )
ID = 2 (CSK), flags = 256, tag = 24846, algo = 13, bits = 256	Inactive	 Published  ( ECDSAP256SHA256 ) 
CSK DNSKEY = example.com. IN DNSKEY 256 3 13 nAzcca4l2FY9nZ5OPwymf92BQPRRABC+Z/I8EayFKVyEXtq35aaIpTa8Fmvo7AaHAihNgML8huPUvp4Oz0K83Q== ; ( ECDSAP256SHA256 )
DS = example.com. IN DS 24846 13 2 483b41832368d05f6e7e2de729e74749601aa4c7cfec2b36a89c64648bc2f597 ; ( SHA256 digest )
DS = example.com. IN DS 24846 13 4 2abab6050fba918ada3d7cf8986670c028cc9ddb3e6fa3d54ea1322a5af5a1f59d21632090806bc3ba155ed8bbe2c22f ; ( SHA-384 digest )
