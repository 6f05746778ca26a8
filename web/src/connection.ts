// SPDX-License-Identifier: Apache-2.0
// The WebSocket to the server, opened again when it breaks.
import type { Message } from "./model";

const AGAIN = 1000;
const TOKEN = "asap2-token";
const WRONG_TOKEN = 4401;

/** The token of the URL's fragment, which is taken out of the address bar, or that of an earlier load of this tab. */
function token(): string | null {
  const found = new URLSearchParams(location.hash.slice(1)).get("token");
  if (found) {
    sessionStorage.setItem(TOKEN, found);
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem(TOKEN);
}

export class Connection {
  private socket: WebSocket | null = null;
  private wanted: string | null = null;
  private listed: string | null = null;
  private ended = false;

  constructor(
    private readonly receive: (message: Message) => void,
    private readonly tell: (state: string) => void,
  ) {
    this.open();
  }

  /** Have the details of this node sent from now on; with `listed`, also the connections that have all of its words. */
  want(node: string | null, listed: string | null): void {
    this.wanted = node;
    this.listed = listed;
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ want: node, connections: listed }));
  }

  private open(): void {
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/stream`);
    this.socket = socket;
    socket.onopen = () => {
      const known = token();
      if (known) socket.send(JSON.stringify({ token: known }));
      this.want(this.wanted, this.listed);
      this.tell("live");
    };
    socket.onmessage = (event) => {
      const message = JSON.parse(String(event.data)) as Message;
      if (message.type === "end") {
        this.ended = true;
        this.tell(`ended: ${message.why}`);
      } else this.receive(message);
    };
    socket.onclose = (event) => {
      if (event.code === WRONG_TOKEN) this.tell("the token is wrong or missing: open the URL that asap2 view printed");
      else if (!this.ended) this.tell("the server does not answer; trying again");
      setTimeout(() => this.open(), AGAIN * (this.ended || event.code === WRONG_TOKEN ? 5 : 1));
      this.ended = false;
    };
  }
}
