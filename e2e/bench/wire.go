package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

const (
	typeSOA  = 6
	typeAXFR = 252
)

var errCutShort = errors.New("message cut short")

// question is a query of one question with that ID.
func question(apex string, qtype uint16) []byte {
	q := []byte{0x12, 0x34, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for label := range strings.SplitSeq(strings.TrimSuffix(apex, "."), ".") {
		q = append(append(q, byte(len(label))), label...)
	}
	return append(q, 0, byte(qtype>>8), byte(qtype), 0, 1)
}

// askSerial asks over UDP for the SOA and returns its serial.
func askSerial(addr, apex string) (uint32, error) {
	conn, err := net.Dial("udp", addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return 0, err
	}
	if _, err := conn.Write(question(apex, typeSOA)); err != nil {
		return 0, err
	}
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	if err != nil {
		return 0, err
	}
	return serialOf(buf[:n])
}

// serialOf reads an answer to the question for the SOA.
func serialOf(msg []byte) (serial uint32, err error) {
	found := false
	_, err = eachAnswer(msg, func(rrtype uint16, rdata []byte) {
		// The serial is the first of the five numbers at the end.
		if rrtype == typeSOA && len(rdata) >= 20 {
			serial, found = binary.BigEndian.Uint32(rdata[len(rdata)-20:]), true
		}
	})
	if err == nil && !found {
		err = errors.New("no SOA")
	}
	return serial, err
}

// countAXFR transfers a zone and returns the number of its records, the SOA
// at the end included.
func countAXFR(addr, apex string) (int, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	q := question(apex, typeAXFR)
	if _, err := conn.Write(append([]byte{0, byte(len(q))}, q...)); err != nil {
		return 0, err
	}
	r, buf := bufio.NewReaderSize(conn, 1<<18), make([]byte, 1<<16)
	records, soas := 0, 0
	var tail []byte // what the SOA ends with; only messages that do are walked
	for soas < 2 {
		msg, err := readFull(r, buf)
		if err != nil {
			return records, fmt.Errorf("after %d records: %w", records, err)
		}
		if tail != nil && len(msg) >= 12 && msg[3]&15 == 0 && !bytes.HasSuffix(msg, tail) {
			records += int(binary.BigEndian.Uint16(msg[6:]))
			continue
		}
		n, err := eachAnswer(msg, func(rrtype uint16, rdata []byte) {
			if rrtype == typeSOA && len(rdata) > 20 {
				soas++
				tail = bytes.Clone(rdata[len(rdata)-20:])
			}
		})
		if err != nil {
			return records, err
		}
		records += n
	}
	return records, nil
}

// eachAnswer walks the answer section and returns how many records it has.
func eachAnswer(msg []byte, fn func(rrtype uint16, rdata []byte)) (int, error) {
	if len(msg) < 12 {
		return 0, errCutShort
	}
	if rcode := msg[3] & 15; rcode != 0 {
		return 0, fmt.Errorf("RCODE %d", rcode)
	}
	questions, answers := binary.BigEndian.Uint16(msg[4:]), binary.BigEndian.Uint16(msg[6:])
	at := 12
	for range questions {
		at = skipName(msg, at) + 4
	}
	for range answers {
		at = skipName(msg, at)
		if at+10 > len(msg) {
			return 0, errCutShort
		}
		end := at + 10 + int(binary.BigEndian.Uint16(msg[at+8:]))
		if end > len(msg) {
			return 0, errCutShort
		}
		fn(binary.BigEndian.Uint16(msg[at:]), msg[at+10:end])
		at = end
	}
	return int(answers), nil
}

// skipName returns where a name ends; beyond the message if it does not.
func skipName(msg []byte, at int) int {
	for at < len(msg) {
		switch n := int(msg[at]); {
		case n == 0:
			return at + 1
		case n >= 0xc0:
			return at + 2
		default:
			at += 1 + n
		}
	}
	return len(msg) + 1
}
