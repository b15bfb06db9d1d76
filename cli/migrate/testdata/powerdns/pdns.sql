PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE domains (
  id                    INTEGER PRIMARY KEY,
  name                  VARCHAR(255) NOT NULL COLLATE NOCASE,
  master                VARCHAR(128) DEFAULT NULL,
  last_check            INTEGER DEFAULT NULL,
  type                  VARCHAR(8) NOT NULL,
  notified_serial       INTEGER DEFAULT NULL,
  account               VARCHAR(40) DEFAULT NULL,
  options               VARCHAR(65535) DEFAULT NULL,
  catalog               VARCHAR(255) DEFAULT NULL
);
INSERT INTO domains VALUES(1,'example.com','',NULL,'NATIVE',NULL,'',NULL,NULL);
INSERT INTO domains VALUES(2,'two.example','',NULL,'NATIVE',NULL,'',NULL,NULL);
INSERT INTO domains VALUES(3,'sec.example','192.0.2.7, 192.0.2.8:5300',NULL,'SLAVE',NULL,'',NULL,NULL);
INSERT INTO domains VALUES(4,'plain.example','',NULL,'NATIVE',NULL,'',NULL,NULL);
CREATE TABLE records (
  id                    INTEGER PRIMARY KEY,
  domain_id             INTEGER DEFAULT NULL,
  name                  VARCHAR(255) DEFAULT NULL,
  type                  VARCHAR(10) DEFAULT NULL,
  content               VARCHAR(65535) DEFAULT NULL,
  ttl                   INTEGER DEFAULT NULL,
  prio                  INTEGER DEFAULT NULL,
  disabled              BOOLEAN DEFAULT 0,
  ordername             VARCHAR(255),
  auth                  BOOL DEFAULT 1,
  FOREIGN KEY(domain_id) REFERENCES domains(id) ON DELETE CASCADE ON UPDATE CASCADE
);
INSERT INTO records VALUES(1,1,'example.com','SOA','a.misconfigured.dns.server.invalid hostmaster.example.com 0 10800 3600 604800 3600',3600,0,0,'',1);
INSERT INTO records VALUES(2,1,'example.com','NS','ns1.example.com',3600,0,0,'',1);
INSERT INTO records VALUES(3,2,'two.example','SOA','a.misconfigured.dns.server.invalid hostmaster.two.example 0 10800 3600 604800 3600',3600,0,0,NULL,1);
INSERT INTO records VALUES(4,2,'two.example','NS','ns1.two.example',3600,0,0,NULL,1);
INSERT INTO records VALUES(5,4,'plain.example','SOA','a.misconfigured.dns.server.invalid hostmaster.plain.example 0 10800 3600 604800 3600',3600,0,0,NULL,1);
INSERT INTO records VALUES(6,2,'www.two.example','ALIAS','target.example.net',3600,0,0,NULL,1);
CREATE TABLE supermasters (
  ip                    VARCHAR(64) NOT NULL,
  nameserver            VARCHAR(255) NOT NULL COLLATE NOCASE,
  account               VARCHAR(40) NOT NULL
);
CREATE TABLE comments (
  id                    INTEGER PRIMARY KEY,
  domain_id             INTEGER NOT NULL,
  name                  VARCHAR(255) NOT NULL,
  type                  VARCHAR(10) NOT NULL,
  modified_at           INT NOT NULL,
  account               VARCHAR(40) DEFAULT NULL,
  comment               VARCHAR(65535) NOT NULL,
  FOREIGN KEY(domain_id) REFERENCES domains(id) ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE TABLE domainmetadata (
 id                     INTEGER PRIMARY KEY,
 domain_id              INT NOT NULL,
 kind                   VARCHAR(32) COLLATE NOCASE,
 content                TEXT,
 FOREIGN KEY(domain_id) REFERENCES domains(id) ON DELETE CASCADE ON UPDATE CASCADE
);
INSERT INTO domainmetadata VALUES(1,1,'NSEC3PARAM','1 0 0 -');
INSERT INTO domainmetadata VALUES(2,1,'SOA-EDIT','INCEPTION-INCREMENT');
INSERT INTO domainmetadata VALUES(3,1,'ALSO-NOTIFY','127.0.0.1:5300');
INSERT INTO domainmetadata VALUES(4,1,'ALLOW-AXFR-FROM','AUTO-NS');
INSERT INTO domainmetadata VALUES(5,1,'ALLOW-AXFR-FROM','192.0.2.0/24');
INSERT INTO domainmetadata VALUES(6,1,'TSIG-ALLOW-AXFR','xfr');
INSERT INTO domainmetadata VALUES(7,1,'PUBLISH-CDS','2');
INSERT INTO domainmetadata VALUES(8,1,'PUBLISH-CDNSKEY','1');
CREATE TABLE cryptokeys (
 id                     INTEGER PRIMARY KEY,
 domain_id              INT NOT NULL,
 flags                  INT NOT NULL,
 active                 BOOL,
 published              BOOL DEFAULT 1,
 content                TEXT,
 FOREIGN KEY(domain_id) REFERENCES domains(id) ON DELETE CASCADE ON UPDATE CASCADE
);
INSERT INTO cryptokeys VALUES(1,1,257,1,1,replace('Private-key-format: v1.2\nAlgorithm: 13 (ECDSAP256SHA256)\nPrivateKey: RmO3F2RdhSBH4GfDDFNfXNb+UI5VqFVve98NRiqbFM4=\n','\n',char(10)));
INSERT INTO cryptokeys VALUES(2,1,256,0,1,replace('Private-key-format: v1.2\nAlgorithm: 13 (ECDSAP256SHA256)\nPrivateKey: wzYmflbe8Eol0vscDDfWIzvvOaUNceb9pKmkFAOE74Y=\n','\n',char(10)));
INSERT INTO cryptokeys VALUES(3,2,256,1,1,replace('Private-key-format: v1.2\nAlgorithm: 8 (RSASHA256)\nModulus: t1wmo0h0t4TzGqcr1ygrZU2NJwJUFhm3mFG62KlVXTiqIlIPWdtqFRD7t0NX6L5wYQ+y0cRnxn8LSjLtAvF1sJkg7gjiR/NZZZTEJNm3qGqQqZSlmGruNwkeNtmKHQiPeMNNuguAJwUqR3JMK0CRjYEyVm2xKa/wt/YelfD0/kE=\nPublicExponent: AQAB\nPrivateExponent: OJxg6YTTVF3d2NrINFOYolxBOkwDvhcOkh6Zu478Zh26mYIQb0PJCtwFe111ZMx3UeBQ62biS2yqBayXdJMsLGXEODvYNSnIAgR0WcO44Vrc8r0r7h07ckkZSi4sd8j2dVfNPfZXedhtf7/NDRj0ZGFwsn1HKP9iD0Xy+GpmXYE=\nPrime1: 6rd4lv5TWqlOj/V17667wsXdz30PAD0as1g2JAYz8maN1UVTSlxFUcdTg5v6i8379job8GoSTQWvkChH+rrTOQ==\nPrime2: x/yGeT+ReySxaudz+vr35MVV2i1t8oDwJcB+4ZyiClCDtjR1YqmPXOfsP7OLWEJZhaRlu+9IfpZVCzgXFeXbSQ==\nExponent1: ngcA7cg1nqi2+D2vNbxTNgO6H2R3oRWC0JTnfsGeX+mkPJ78QOh202R8WfO+cDozFchx3x/LSog1d71nGOyIIQ==\nExponent2: RmwwVmYCLuD+8OxMNSdHP/IVh1zUCL9K0aB1jbEAhq1PlEvowjN/XnH1CYGKIixLJfp8MK/UUW9Sxz6bMoTcsQ==\nCoefficient: DS+hnIc6l4UkdoUaeuuscaYdPHdLUgMqxnE3O4pVO7bxkgTIS4An57+ZNltbbWPhtbm79p987zy9bhtk8ptduA==\n','\n',char(10)));
INSERT INTO cryptokeys VALUES(4,3,257,1,1,replace('Private-key-format: v1.2\nAlgorithm: 13 (ECDSAP256SHA256)\nPrivateKey: Ms8BFMRK980zIYE3OYBXV+LP9L4x+O6zSqQjwymLvY8=\n','\n',char(10)));
CREATE TABLE tsigkeys (
 id                     INTEGER PRIMARY KEY,
 name                   VARCHAR(255) COLLATE NOCASE,
 algorithm              VARCHAR(50) COLLATE NOCASE,
 secret                 VARCHAR(255)
);
INSERT INTO tsigkeys VALUES(1,'xfr','hmac-sha256','MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=');
CREATE UNIQUE INDEX name_index ON domains(name);
CREATE INDEX catalog_idx ON domains(catalog);
CREATE INDEX records_lookup_idx ON records(name, type);
CREATE INDEX records_lookup_id_idx ON records(domain_id, name, type);
CREATE INDEX records_order_idx ON records(domain_id, ordername);
CREATE UNIQUE INDEX ip_nameserver_pk ON supermasters(ip, nameserver);
CREATE INDEX comments_idx ON comments(domain_id, name, type);
CREATE INDEX comments_order_idx ON comments (domain_id, modified_at);
CREATE INDEX domainmetaidindex ON domainmetadata(domain_id);
CREATE INDEX domainidindex ON cryptokeys(domain_id);
CREATE UNIQUE INDEX namealgoindex ON tsigkeys(name, algorithm);
COMMIT;
