// Package transaction implements the SIP transaction layer of RFC 3261 §17 as corrected by RFC 6026, for clients and
// servers, INVITE and other methods.
//
// A [Layer] sits between a transport ([transport.Stack]) and the transaction user, the [User]. It retransmits over UDP,
// absorbs the far side's retransmissions, matches responses, ACK and CANCEL, answers requests that do not become a
// transaction (unreadable or invalid requests, merged requests, CANCEL that matches nothing, overload), and runs the
// timers. A request is passed to the user as a [Server] transaction; the user sends its own requests with [Layer.Send],
// which makes a [Client] transaction.
//
// # Callbacks
//
// The layer calls User, [ServerHandler] and [ClientHandler] on the goroutine that read the message or runs the timers.
// Callbacks must not block. Those of one transaction are made one at a time, in the order in which messages arrived;
// they are made with no lock held, so they may call any method of any transaction. Messages of one flow are handled one
// after the other, so the 180 and the 200 of an INVITE, or the 200 and the BYE after it, reach the user in that order.
// (Only a timer callback that runs at the same moment can let the next transaction's message overtake.) A panic in a
// callback ends that callback only, and is counted.
//
// # What the layer does for the user of an INVITE
//
//   - [Server]: sends 100 by itself if the user has not responded within 200 ms; answers CANCEL; retransmits a 2xx sent
//     with [Server.RespondReliably] until the ACK arrives, and passes that to the user (RFC 3261 §13.3.1.4);
//     retransmits other final responses until ACK.
//   - [Client]: sends the ACK of a non-2xx final response; sends the user's ACK of a 2xx again when the 2xx is repeated
//     ([Client.Ack]); delays a CANCEL until a provisional response has arrived (§9.1).
//
// The layer does not handle dialogs or choose targets. It does not limit how long an INVITE may ring: the user does.
package transaction
