// Package transaction is the transaction layer of SIP: RFC 3261 §17 as corrected by RFC 6026, for clients and servers, INVITE and others.
//
// A [Layer] sits between a transport ([transport.Stack]) and the transaction user, the [User]. It retransmits over UDP, absorbs what the
// far side retransmits, matches responses, ACK and CANCEL, answers what is not fit to become a transaction (unreadable or
// invalid requests, merged requests, CANCEL for nothing, overload), and keeps time. Requests come to the user as a [Server] transaction;
// the user sends its own with [Layer.Send], which makes a [Client] transaction.
//
// # Callbacks
//
// The layer calls User, [ServerHandler] and [ClientHandler] on the goroutine that read the message or runs the timers. Callbacks must not
// block. Those of one transaction come one at a time, in the order in which messages arrived; they are called with no lock held, so they may call
// any method of any transaction. Messages of one flow are handled one after the other, so the 180 and the 200 of an INVITE, or the 200
// and the BYE behind it, reach the user in that order. (Only a timer's callback that runs at that very moment
// can let the next transaction's message overtake.) A panic in a callback ends that callback only, and is counted.
//
// # What the layer does for the user of an INVITE
//
//   - [Server]: sends 100 by itself if the user has not answered in 200 ms; answers CANCEL; retransmits a 2xx sent with
//     [Server.RespondReliably] until the ACK comes, and hands that over (RFC 3261 §13.3.1.4); retransmits other finals until ACK.
//   - [Client]: sends the ACK of a non-2xx final; sends the user's ACK of a 2xx again when the 2xx comes again ([Client.Ack]);
//     holds a CANCEL back until a provisional response has come (§9.1).
//
// The layer is not for dialogs (package dialog), and chooses no targets. It sets no limit to how long an INVITE may ring: the user does.
package transaction
