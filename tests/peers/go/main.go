// Go's own HTTP client, from the standard library alone.
//
// `client URL CA MEGABYTES MESSAGES`: bodies down and up, down through gzip, and both at 20 Mbit/s; WebSockets over HTTP/2 with
// messages of 4 KB, fast and at 20 Mbit/s, and of 6 bytes. Prints `ok` and the figures, or what failed.
//
// `serve`: an upstream with `/gzip/N`, N bytes that are stored, not compressed. Prints its port.
package main

import (
	"bufio"
	"compress/gzip"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

func check(err error, what string) {
	if err != nil {
		fmt.Printf("%s: %v\n", what, err)
		os.Exit(1)
	}
}

func serve() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err, "listen")
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	http.HandleFunc("/gzip/", func(w http.ResponseWriter, r *http.Request) {
		length, err := strconv.ParseInt(strings.TrimPrefix(r.URL.Path, "/gzip/"), 10, 64)
		if err != nil || r.Header.Get("Accept-Encoding") != "gzip" {
			w.WriteHeader(400)
			return
		}
		w.Header().Set("Content-Encoding", "gzip")
		packed, _ := gzip.NewWriterLevel(w, gzip.NoCompression)
		io.Copy(packed, io.LimitReader(zeros{}, length))
		packed.Close()
	})
	check(http.Serve(listener, nil), "serve")
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// Reads at 20 Mbit/s, in pieces as an application does.
type paced struct {
	from  io.Reader
	begun time.Time
	read  int64
}

func (p *paced) Read(b []byte) (int, error) {
	n, err := p.from.Read(b[:min(len(b), 4096)])
	p.read += int64(n)
	time.Sleep(time.Until(p.begun.Add(time.Duration(p.read) * time.Second / 2_500_000)))
	return n, err
}

var client *http.Client

func down(what, url string, length int64, slow bool) {
	begun := time.Now()
	response, err := client.Get(url)
	check(err, what)
	defer response.Body.Close()
	if response.ProtoMajor != 2 || response.StatusCode != 200 {
		check(fmt.Errorf("%s %s", response.Proto, response.Status), what)
	}
	body := io.Reader(response.Body)
	if slow {
		body = &paced{from: body, begun: begun}
	}
	// Small reads: the client returns its windows for each.
	count, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{body}, make([]byte, 4096))
	check(err, fmt.Sprintf("%s after %d bytes", what, count))
	if count != length {
		check(fmt.Errorf("%d bytes instead of %d", count, length), what)
	}
	fmt.Printf("%s %.1f s, ", what, time.Since(begun).Seconds())
}

func up(what, url string, length int64, slow bool) {
	begun := time.Now()
	body := io.LimitReader(zeros{}, length)
	if slow {
		body = &paced{from: body, begun: begun}
	}
	request, _ := http.NewRequest("POST", url, body)
	request.ContentLength = length
	response, err := client.Do(request)
	check(err, what)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	check(err, what)
	if response.ProtoMajor != 2 || string(text) != strconv.FormatInt(length, 10) {
		check(fmt.Errorf("%s %s %q", response.Proto, response.Status, text), what)
	}
	fmt.Printf("%s %.1f s, ", what, time.Since(begun).Seconds())
}

// Masked with zeros, so that the payload stays what it is.
func message(size int) []byte {
	head := []byte{0x82, 0x80 | byte(size)}
	if size > 125 {
		head = binary.BigEndian.AppendUint16([]byte{0x82, 0x80 | 126}, uint16(size))
	}
	return append(append(head, 0, 0, 0, 0), make([]byte, size)...)
}

// So many messages to an echo and back, as fast as the windows allow.
func messages(what, url string, size, count int, slow bool) {
	begun := time.Now()
	reader, writer := io.Pipe()
	request, _ := http.NewRequest("CONNECT", url, reader)
	request.Header.Set(":protocol", "websocket")
	request.Header.Set("Sec-WebSocket-Version", "13")
	response, err := client.Do(request)
	check(err, what)
	defer response.Body.Close()
	if response.ProtoMajor != 2 || response.StatusCode != 200 {
		check(fmt.Errorf("%s %s", response.Proto, response.Status), what)
	}
	go func() {
		one := message(size)
		for range count {
			if _, err := writer.Write(one); err != nil {
				return
			}
		}
	}()
	from := io.Reader(response.Body)
	if slow {
		from = &paced{from: from, begun: begun}
	}
	body := bufio.NewReaderSize(from, 4096)
	back := make([]byte, len(message(size))-4)
	for at := range count {
		_, err := io.ReadFull(body, back)
		check(err, fmt.Sprintf("%s after %d messages", what, at))
		if back[0] != 0x82 {
			check(fmt.Errorf("% x after %d messages", back[:min(20, len(back))], at), what)
		}
	}
	writer.Close()
	fmt.Printf("%s %.1f s, ", what, time.Since(begun).Seconds())
}

func main() {
	if os.Args[1] == "serve" {
		serve()
	}
	url, megabytes, count := os.Args[2], int64(0), 0
	pem, err := os.ReadFile(os.Args[3])
	check(err, "CA")
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	client = &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true},
		Timeout:   10 * time.Minute,
	}
	fmt.Sscan(os.Args[4], &megabytes)
	fmt.Sscan(os.Args[5], &count)
	length := megabytes * 1_000_000
	down("down", fmt.Sprintf("%s/bytes/%d", url, length), length, false)
	down("gzip", fmt.Sprintf("%s/gzip/%d", url, length), length, false)
	down("slow", fmt.Sprintf("%s/bytes/%d", url, length/8), length/8, true)
	up("up", url+"/count", length, false)
	up("slow up", url+"/count", length/8, true)
	messages("4 KB messages", url+"/echo", 4096, int(length/4096), false)
	messages("slow messages", url+"/echo", 4096, int(length/8/4096), true)
	messages("tiny messages", url+"/echo", 6, count, false)
	fmt.Println("ok")
}
