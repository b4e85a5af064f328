// What `app.py` describes, behind Node's own http.
//
//     node server.mjs PLAIN TLS IMPATIENT CERTIFICATE KEY
//
// The first three are descriptors of listening sockets: one that speaks plainly, one with TLS, and
// one whose connections may be unused for a second. It ends when its standard input does.

import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import zlib from "node:zlib";

const PIECE = 60_000;
const LINE = "The quick brown fox jumps over the lazy dog 0123456789 times.\n";
const [plain, tls, impatient, certificate, key] = process.argv.slice(2);
const turns = new Map();

const pattern = (size) => Buffer.from(LINE.repeat(size / LINE.length + 1)).subarray(0, size);

// A promise that is kept once `/turn` was asked; turns that nobody waits for are kept.
function turn(name) {
  const { taken, given } = turnsOf(name);
  return given.pop() ?? new Promise((resolve) => taken.push(resolve));
}

function turnsOf(name) {
  if (!turns.has(name)) turns.set(name, { taken: [], given: [] });
  return turns.get(name);
}

async function bodyOf(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  return Buffer.concat(parts);
}

// The coding that is asked for, and what makes it; the best first.
function packer(request) {
  const accepted = request.headers["accept-encoding"] ?? "";
  if (accepted.includes("br")) return ["br", zlib.createBrotliCompress()];
  if (accepted.includes("gzip")) return ["gzip", zlib.createGzip()];
  return [];
}

async function events(request, response, name) {
  const [coding, packed] = packer(request);
  const headers = { "Content-Type": "text/event-stream" };
  if (coding) headers["Content-Encoding"] = coding;
  response.writeHead(200, headers);
  packed?.pipe(response);
  const out = packed ?? response;
  for (const number of [1, 2]) {
    out.write(`data: ${number}\n\n`);
    packed?.flush();
    await turn(name);
  }
  out.end();
}

async function answer(request, response) {
  const url = new URL(request.url, "http://here");
  const size = Number(url.searchParams.get("bytes"));
  const name = url.searchParams.get("name");
  const [, route, detail] = url.pathname.split("/");
  response.setHeader("X-Peer", request.socket.remotePort);
  const whole = (body, status = 200) => {
    response.writeHead(status, status === 204 ? {} : { "Content-Length": body.length });
    response.end(body);
  };
  switch (route) {
    case "length":
      return whole(pattern(size));
    case "chunked": {
      const body = pattern(size);
      response.writeHead(200);
      for (let begin = 0; begin < size; begin += PIECE) {
        response.write(body.subarray(begin, begin + PIECE));
      }
      return response.end();
    }
    case "packed": {
      const [coding, packed] = packer(request);
      if (!coding) return whole(pattern(size));
      response.writeHead(200, { "Content-Encoding": coding });
      packed.pipe(response);
      return packed.end(pattern(size));
    }
    case "echo":
      return whole(await bodyOf(request));
    case "events":
      return events(request, response, name);
    case "turn": {
      const { taken, given } = turnsOf(name);
      if (taken.length) taken.shift()();
      else given.push(Promise.resolve());
      return whole("ok");
    }
    case "status":
      return whole(detail === "204" ? "" : "words", Number(detail));
    case "last":
      response.setHeader("Connection", "close");
      return whole("ok");
    case "cut":
      if (!url.searchParams.has("chunked")) response.setHeader("Content-Length", 2 * size);
      response.writeHead(200);
      return response.write(pattern(size), () => request.socket.destroySoon());
    default:
      return whole("nothing here", 404);
  }
}

function listen(server, descriptor, seconds) {
  server.keepAliveTimeout = seconds * 1000;
  server.listen({ fd: Number(descriptor) });
}

process.stdin.on("end", () => process.exit()).resume();
const tlsOptions = { cert: readFileSync(certificate), key: readFileSync(key) };
listen(http.createServer(answer), plain, 60);
listen(https.createServer(tlsOptions, answer), tls, 60);
listen(http.createServer(answer), impatient, 1);
